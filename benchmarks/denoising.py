"""Molecular cross-validation: a tenth of the molecules held out, predicted from the others.

python benchmarks/denoising.py pbmc3k

Open Problems' mean squared error (both matrices normalised to 10,000 counts per cell, log1p) and the Poisson loss of
the held-out molecules. Writes benchmarks/results/denoising.csv and .md.
"""

import logging
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _protocol import load, parser
from scipy import sparse

from countsdiff import CountsDiffImputer, metrics
from countsdiff.baselines import get_baseline

SHARE = 0.9


def score(test, predicted) -> dict[str, float]:
    return {
        "mse": metrics.open_problems_mse(test, predicted),
        "poisson_loss": metrics.poisson_loss(test.ravel(), predicted.ravel()),
    }


def run(name: str, data_dir: Path, seed: int, n_genes: int, rivals: list[str]) -> pd.DataFrame:
    data = load(name, data_dir, n_genes)
    train = np.random.default_rng(seed).binomial(data.counts.astype(np.int64), SHARE).astype(np.float32)
    test = data.counts - train
    detected = train.sum(0) > 0
    train, test = train[:, detected], test[:, detected]
    depth = (1 - SHARE) / SHARE
    rows = [{"method": "none", **score(test, train * depth), "seconds": 0.0}]
    start = time.perf_counter()
    adata = ad.AnnData(sparse.csr_matrix(train))
    model = CountsDiffImputer(adata)
    model.train(seed=seed, enable_progress_bar=False)
    for output in ("mean", "log_mean"):
        predicted = model.denoise(output=output, depth=depth, inplace=False)
        rows.append(
            {"method": f"countsdiff {output}", **score(test, predicted), "seconds": time.perf_counter() - start}
        )
    for method in rivals:
        start = time.perf_counter()
        predicted = get_baseline(method).impute(train, None, seed=seed) * depth
        rows.append({"method": method, **score(test, predicted), "seconds": time.perf_counter() - start})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows).assign(dataset=name, seed=seed, n_genes=int(detected.sum()))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--genes", type=int, default=3000)
    arguments.add_argument("--rivals", nargs="*", default=["knn", "magic_sqrt", "magic_log", "magic_none", "scvi"])
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "denoising.csv")
    args = arguments.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    rows = pd.concat(
        [run(name, args.data, seed, args.genes, args.rivals) for name in args.datasets for seed in args.seeds]
    )
    rows = rows[["dataset", "n_genes", "seed", "method", "mse", "poisson_loss", "seconds"]].round(4)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(args.out, index=False)
    lines = ["| " + " | ".join(rows.columns) + " |", "|---" * len(rows.columns) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows.itertuples(index=False)]
    head = (
        "# Molecular cross-validation: 90 % of the molecules predict the other 10 %\n\n"
        "Written by `python benchmarks/denoising.py`. Lower is better.\n\n"
    )
    args.out.with_suffix(".md").write_text(head + "\n".join(lines) + "\n")
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
