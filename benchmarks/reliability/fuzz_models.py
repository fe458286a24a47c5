"""Saved models, damaged at random: each is read as the model it was, or refused with the one error there is for it.

python benchmarks/reliability/fuzz_models.py --n 20000 --seed 0

Damages the frozen checkpoint of the tests in one of the ways below, loads it in this process, and counts what comes
of it. "Forged" files carry right checksums, so that nothing but the checks of their content stands between them and the
model: these may load as another model, which is what they are then. Any other exception, or another model from files
that were not forged, is a defect; it is listed with the number that repeats it (--n 1 --seed THAT).
"""

import argparse
import json
import logging
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.append(str(Path(__file__).parents[1]))

from _damage import DAMAGES, FORGERIES, RECORD, SHARES, WEIGHTS
from _markdown import markdown, write_page
from safetensors.torch import save

from countsdiff import CountsDiffImputer
from countsdiff.model_files import ModelFileError, encode

CHECKPOINT = Path(__file__).parents[2] / "tests" / "model" / "data" / "v1"
COMMAND = "python benchmarks/reliability/fuzz_models.py"
OUTCOMES = ("the same model", "refused", "another model")


def identity(model: CountsDiffImputer) -> tuple[str, bytes]:
    """All there is to a model."""
    kept = {key: value for key, value in model._get_user_attributes() if key[-1] == "_" and key[:4] != "run_"}
    return json.dumps(encode(kept)), save({k: v.contiguous() for k, v in model.module.state_dict().items()})


def attempt(seed: int, folder: Path, original: tuple[str, bytes]) -> tuple[str, str]:
    """Damage a copy of the checkpoint, and load it; return how, and what came of it."""
    rng = np.random.default_rng(seed)
    weights = np.array([SHARES.get(name, 1) for name in DAMAGES], dtype=float)
    damage = str(rng.choice(list(DAMAGES), p=weights / weights.sum()))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in (RECORD, WEIGHTS):
        shutil.copyfile(CHECKPOINT / name, folder / name)
    DAMAGES[damage](folder, rng)
    try:
        found = identity(CountsDiffImputer.load(folder, adata=False, accelerator="cpu"))
    except ModelFileError as error:
        clear = str(folder) in str(error) and "\n" not in str(error) and len(str(error)) < 1_000
        return damage, "refused" if clear else f"unclear: {error}"
    except Exception as error:  # noqa: BLE001  # what is looked for
        return damage, f"{type(error).__name__}: {error}"
    if found == original:
        return damage, "the same model"
    return damage, "another model" if damage in FORGERIES else "another model, from files that are not forged"


def fuzz(seeds: range, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Counts of outcomes for every kind of damage, and the defects."""
    original = identity(CountsDiffImputer.load(CHECKPOINT, adata=False, accelerator="cpu"))
    counts: Counter[tuple[str, str]] = Counter()
    defects = []
    for seed in seeds:
        damage, outcome = attempt(seed, folder, original)
        if outcome not in OUTCOMES:
            defects.append(f"seed {seed}, {damage}: {outcome}")
            outcome = "defect"
        counts[damage, outcome] += 1
    rows = [
        {"damage": damage, **{outcome: counts[damage, outcome] for outcome in (*OUTCOMES, "defect")}}
        for damage in DAMAGES
    ]
    table = pd.DataFrame(rows)
    table.loc[len(table)] = {"damage": "all", **table.drop(columns="damage").sum()}
    return table, defects


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=20_000, help="number of damaged models (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow (default: 0)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        table, defects = fuzz(range(arguments.seed, arguments.seed + arguments.n), Path(folder, "model"))
    took = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    text = "\n".join([markdown(table), "", f"Defects: {len(defects)}.", *(f"- {defect}" for defect in defects)])
    print(text, f"\n{took:.0f} s, at most {memory:.0f} MB", sep="\n")
    if arguments.out is not None:
        write_page(
            arguments.out,
            "# Damaged model files",
            __doc__.strip().replace(COMMAND, f"    {COMMAND}"),
            f"Run with --n {arguments.n} --seed {arguments.seed}, in {took:.0f} s on a shared core and with at most "
            f"{memory:.0f} MB of memory, most of which is Python with torch.",
            text,
        )
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
