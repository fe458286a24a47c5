"""How short may training be? Read, train for fewer steps, impute and write, beside MAGIC, in one run.

python benchmarks/speed/short_training.py --data FILE.h5ad [--steps 100 200 400 800]

Data and what is hidden are those of end_to_end.py. Writes benchmarks/results/speed/short_training.md.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import pandas as pd
import torch
from end_to_end import RESULTS, markdown, ours, prepare, rival, write_page

from countsdiff import metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="default: the bundled cells")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 200, 400, 800])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    counts, hidden = prepare(args.data)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    rows = []

    def add(method: str, imputed, seconds: float) -> None:
        scores = metrics.evaluate(counts, imputed, hidden)
        rows.append({"method": method, "seconds": seconds, "R²": scores["r2"], "Poisson loss": scores["poisson_loss"]})
        print(rows[-1], flush=True)

    for name in ("magic_sqrt", "magic_log", "magic_none"):
        imputed, _, seconds = rival(name, counts, hidden)
        add(name, imputed, seconds)
    for n_steps in args.steps:
        with tempfile.TemporaryDirectory() as folder:
            training = {"max_steps": n_steps, "batch_size": 512, "lr": 0.006}
            add(f"countsdiff, {n_steps:,} steps", *ours(counts, hidden, Path(folder), **training))
    lines = [
        "# Short trainings",
        "`python benchmarks/speed/short_training.py" + (f" --data {args.data.name}" if args.data else "") + "`",
        f"{len(counts):,} cells × {counts.shape[1]:,} genes, a tenth of the entries hidden and imputed; "
        f"{torch.get_num_threads()} threads. Seconds of countsdiff are from file to file; its steps are of 512 cells, "
        "at a learning rate of .006.",
        markdown(pd.DataFrame(rows)),
    ]
    write_page(RESULTS / "short_training.md", *lines)


if __name__ == "__main__":
    main()
