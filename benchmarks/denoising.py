"""Molecular cross-validation: a tenth of the molecules held out, predicted from the others.

python benchmarks/denoising.py --seeds 0
python benchmarks/denoising.py pbmc3k --genes 3000 --seeds 0

The denoising task of Open Problems. Appends to benchmarks/results/denoising.csv, skipping what stands there already,
and writes denoising.md.
"""

import itertools
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _protocol import load, parser
from scipy import sparse

from countsdiff import CountsDiffImputer, metrics
from countsdiff.baselines import get_baseline

SHARE = 0.9


METHODS = [
    "none",
    "countsdiff mean",
    "countsdiff log_mean",
    "knn",
    "alra",
    "magic_sqrt",
    "magic_log",
    "magic_none",
    "scvi",
]
KEYS = ["dataset", "n_genes", "seed", "method"]


def score(test, predicted) -> dict[str, float]:
    return {
        "mse": metrics.open_problems_mse(test, predicted),
        "poisson_loss": metrics.poisson_loss(test.ravel(), predicted.ravel()),
        "open_problems_poisson": metrics.open_problems_poisson(test, predicted),
    }


def predict(train, methods: list[str], seed: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield method, prediction at the depth of the held-out molecules, and seconds; countsdiff is trained once."""
    depth = (1 - SHARE) / SHARE
    start = time.perf_counter()
    ours = [method for method in methods if method.startswith("countsdiff")]
    if ours:
        model = CountsDiffImputer(ad.AnnData(sparse.csr_matrix(train)))
        model.train(seed=seed, enable_progress_bar=False)
    for method in ours:
        predicted = model.denoise(output=method.split()[1], depth=depth, inplace=False)
        yield method, predicted, time.perf_counter() - start
    for method in methods:
        start = time.perf_counter()
        if method == "none":
            yield method, train * depth, 0.0
        elif method not in ours:
            predicted = get_baseline(method).impute(train, None, seed=seed) * depth
            yield method, predicted, time.perf_counter() - start


def report(rows: pd.DataFrame) -> str:
    """Markdown: mean over the seeds; the best of every data set in bold."""
    names = {
        "mse": "MSE",
        "poisson_loss": "Poisson loss",
        "open_problems_poisson": "their Poisson loss",
        "seconds": "s",
    }
    means = rows.groupby(["dataset", "n_genes", "method"], sort=False)[list(names)].mean().reset_index()
    means["method"] = pd.Categorical(means.method, METHODS)
    means = means.sort_values(["dataset", "n_genes", "method"])
    best = means.groupby(["dataset", "n_genes"])[["mse", "poisson_loss"]].transform("min")
    lines = ["| dataset | genes | method | " + " | ".join(names.values()) + " |", "|---" * (3 + len(names)) + "|"]
    for row, least in zip(means.itertuples(), best.itertuples(), strict=True):
        cells = [
            f"**{value:.4g}**" if value == getattr(least, name, None) else f"{value:.4g}"
            for name, value in ((name, getattr(row, name)) for name in names)
        ]
        lines.append(f"| {row.dataset} | {row.n_genes} | {row.method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--genes", type=int, default=1000)
    arguments.add_argument("--methods", nargs="*", default=METHODS)
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "denoising.csv")
    args = arguments.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name, seed in itertools.product(args.datasets, args.seeds):
        data = load(name, args.data, args.genes)
        train = np.random.default_rng(seed).binomial(data.counts.astype(np.int64), SHARE).astype(np.float32)
        test = data.counts - train
        detected = train.sum(0) > 0
        train, test = train[:, detected], test[:, detected]
        done = pd.read_csv(args.out)[KEYS] if args.out.exists() else pd.DataFrame(columns=KEYS)
        done = done[(done.dataset == name) & (done.seed == seed) & (done.n_genes == args.genes)].method
        todo = [method for method in args.methods if method not in set(done)]
        for method, predicted, seconds in predict(train, todo, seed):
            row = {"dataset": name, "n_genes": args.genes, "seed": seed, "method": method, "seconds": seconds}
            row |= score(test, predicted)
            pd.DataFrame([row]).to_csv(args.out, mode="a", header=not args.out.exists(), index=False)
            print(row, flush=True)
    head = (
        "# Molecular cross-validation: 90 % of the molecules predict the other 10 %\n\n"
        "Written by `python benchmarks/denoising.py`; lower is better, best in bold. Open Problems' two metrics: MSE "
        "after normalisation to 10,000 and log1p, and their Poisson loss, whose arguments are exchanged (predictions "
        "near zero score best); between them the Poisson loss that was meant. `none`: the other molecules, scaled. "
        "Times on one thread of a busy machine.\n\n"
    )
    args.out.with_suffix(".md").write_text(head + report(pd.read_csv(args.out)) + "\n")


if __name__ == "__main__":
    main()
