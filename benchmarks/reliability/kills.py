"""SIGKILL at random moments while data are imputed and written, and while models are saved.

python benchmarks/reliability/kills.py --kills 240

Every attempt runs in a forked process that is killed after a random time. Afterwards the input must be what it was, the
output absent, the old one, or the whole new one, and a run without a kill must write the bytes that it writes where
nothing was ever killed. Writes benchmarks/results/reliability/kills.md.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from countsdiff import CountsDiffImputer, distributed
from countsdiff.cli import main as command_line

sys.path.insert(0, str(Path(__file__).parents[1]))
from _markdown import markdown, write_page

RESULTS = Path(__file__).parents[1] / "results" / "reliability"


def make_input(folder: Path) -> None:
    """Small data with missing entries, as .h5ad and zarr, and a model of them."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 2.0, (1, 200)) * rng.gamma(4.0, 0.25, (3_000, 1))).astype(np.float32)
    adata = ad.AnnData(sparse.csr_matrix(counts))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(3_000)], [f"g{j}" for j in range(200)]
    adata.layers["hidden"] = sparse.csr_matrix(rng.random(counts.shape) < 0.1)
    adata.write_h5ad(folder / "in.h5ad")
    adata.write_zarr(folder / "in.zarr")
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = CountsDiffImputer(adata, width=32)
    model.train(20, enable_progress_bar=False)
    model.save(str(folder / "model"))


def digest(path: Path) -> str:
    """Fingerprint of the contents of a file or folder, temporary (hidden) files aside; empty if there is none."""
    files = [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file())
        files = [
            p
            for p in found
            if not str(p.relative_to(path)).startswith(".") or p.name in (".zattrs", ".zgroup", ".zmetadata")
        ]
    if not path.exists():
        return ""
    parts = [f"{file.relative_to(path)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def chunks(folder: Path, kind: str) -> Callable[[], None]:
    return lambda: distributed.impute(
        folder / f"in.{kind}", folder / "model", out=folder / f"out.{kind}", chunk_size=250
    )


def jobs(folder: Path) -> dict[str, tuple[Callable[[], None], Path]]:
    """What is killed, and what it writes."""

    def command(out: str, *options: str) -> None:
        arguments = ["impute", str(folder / "in.h5ad"), "-o", str(folder / out), "--missing-layer", "hidden", "--quiet"]
        if command_line([*arguments, *options]) != 0:
            raise RuntimeError("the command failed")

    def save() -> None:
        CountsDiffImputer.load(str(folder / "model"), adata=False).save(str(folder / "saved"), overwrite=True)

    return {
        "countsdiff impute --model": (
            lambda: command("whole.h5ad", "--model", str(folder / "model")),
            folder / "whole.h5ad",
        ),
        "countsdiff impute, with training": (
            lambda: command("trained.h5ad", "--steps", "20"),
            folder / "trained.h5ad",
        ),
        "distributed.impute, .h5ad": (chunks(folder, "h5ad"), folder / "out.h5ad"),
        "distributed.impute, zarr": (chunks(folder, "zarr"), folder / "out.zarr"),
        "model.save over an older model": (save, folder / "saved"),
    }


def run(job: Callable[[], None], kill_after: float | None = None) -> tuple[bool, float]:
    """Run in a fork; return whether it ended by itself, and the seconds it took."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            job()
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError("a run that nobody killed failed; see above")
    return os.WIFEXITED(status), time.perf_counter() - start


def torment(job: Callable[[], None], out: Path, inputs: list[Path], n_kills: int, rng: random.Random) -> dict:
    """Kill one job again and again; count what was found."""
    before = {path: digest(path) for path in inputs}
    _, seconds = run(job)
    expected, found = digest(out), Counter()
    while found["kills"] < n_kills:
        if found["kills"] % 2 == 0:  # every other time onto nothing, else onto the last result
            shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
        was = digest(out)
        ended, _ = run(job, kill_after=rng.uniform(0.0, 1.1 * seconds))
        if ended:
            continue  # it was faster
        found["kills"] += 1
        found["input changed"] += any(digest(path) != before[path] for path in inputs)
        found["corrupt output"] += digest(out) not in {was, expected}
        run(job)
        found["other bytes after a rerun"] += digest(out) != expected
    keys = ("kills", "input changed", "corrupt output", "other bytes after a rerun")
    return {**{key: found[key] for key in keys}, "seconds of a run": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=240, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_input(folder)
        inputs = [folder / "in.h5ad", folder / "in.zarr", folder / "model"]
        todo = jobs(folder)
        rows = []
        for what, (job, out) in todo.items():
            rows.append({"what was killed": what} | torment(job, out, inputs, args.kills // len(todo), rng))
            print(rows[-1], flush=True)
        left = sorted(p.name for p in folder.iterdir())
    table = pd.DataFrame(rows)
    lines = [
        "# SIGKILL at random moments",
        f"`python benchmarks/reliability/kills.py --kills {args.kills} --seed {args.seed}`",
        markdown(table),
        f"Files in the folder in the end: {', '.join(left)}.",
    ]
    write_page(RESULTS / "kills.md", *lines)
    if table[["input changed", "corrupt output", "other bytes after a rerun"]].to_numpy().any():
        sys.exit("Something was lost; see the table.")


if __name__ == "__main__":
    main()
