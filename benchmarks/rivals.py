"""Run every baseline on half-hidden data sets and append its scores, and the seconds it took, to a CSV file.

python benchmarks/rivals.py pbmc3k --seeds 1 2 3 --out benchmarks/results/rivals.csv
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from _protocol import load, parser

from countsdiff import metrics, pp
from countsdiff.baselines import BASELINES, get_baseline


def score(name: str, method: str, data_dir: Path, seed: int) -> pd.DataFrame:
    """Hide half of all entries, impute them, and return one row per metric."""
    data = load(name, data_dir)
    hidden = pp.mcar(data.counts.shape, 0.5, seed=seed)
    counts = np.where(hidden, np.float32(0), data.counts)
    start = time.perf_counter()
    imputed = get_baseline(method).impute(counts, hidden, labels=data.labels, seed=seed)
    seconds = time.perf_counter() - start
    scores = metrics.evaluate(data.counts, imputed, hidden)
    row = {"dataset": name, "method": method, "seed": seed}
    return pd.DataFrame([row | {"metric": m, "value": v, "seconds": seconds} for m, v in scores.items()])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--methods", nargs="+", default=list(BASELINES), help="default: all")
    arguments.add_argument("--out", type=Path, default=Path("benchmarks/results/rivals.csv"))
    args = arguments.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.datasets:
        for seed in args.seeds:
            for method in args.methods:
                rows = score(name, method, args.data, seed)
                rows.to_csv(args.out, mode="a", header=not args.out.exists(), index=False)
                print(f"{name} {method} seed {seed}", rows.set_index("metric")["value"].round(3).to_dict(), flush=True)


if __name__ == "__main__":
    main()
