"""Other kinds of counts than molecules of single cells, made of the benchmark's data: half of the entries hidden.

python benchmarks/other_counts.py

The defaults of countsdiff were not chosen on any of them. Writes benchmarks/results/other_counts.md.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from _markdown import markdown, write_page
from _protocol import Dataset, load, parser
from anndata import read_h5ad
from imputation import STEPS, Ours, run_ours, run_rival

from countsdiff import pp

RIVALS = ("size_factor_mean", "knn", "magic_sqrt", "magic_log")
CELLS = 2_000
Counts = np.ndarray


def some_cells(data: Dataset, rng: np.random.Generator, n_cells: int = CELLS) -> Counts:
    return data.counts[rng.permutation(len(data.counts))[:n_cells]]


def as_they_are(folder: Path, rng: np.random.Generator) -> Counts:
    """Molecules of PBMC 3k, for comparison."""
    return some_cells(load("pbmc3k", folder, 600), rng)


def reads(folder: Path, rng: np.random.Generator) -> Counts:
    """PBMC 3k, full-length: every molecule is read 30 times on average, negative binomially."""
    counts = as_they_are(folder, rng)
    return rng.poisson(rng.gamma(counts, 30.0))


def shallow(folder: Path, rng: np.random.Generator) -> Counts:
    """PBMC 3k, 200 molecules left of every cell."""
    counts = as_they_are(folder, rng)
    share = np.minimum(200.0 / counts.sum(1, keepdims=True), 1.0)
    return rng.binomial(counts.astype(int), share)


def two_depths(folder: Path, rng: np.random.Generator) -> Counts:
    """PBMC 3k, a tenth of the molecules left of every second cell."""
    counts = as_they_are(folder, rng).astype(int)
    counts[::2] = rng.binomial(counts[::2], 0.1)
    return counts


def panel(folder: Path, rng: np.random.Generator) -> Counts:
    """Fetal atlas, its 100 most variable genes."""
    return some_cells(load("mca_fetal", folder, 100), rng, 4_000)


def metacells(folder: Path, rng: np.random.Generator) -> Counts:
    """Fetal atlas, sums of 20 cells of one type."""
    data = load("mca_fetal", folder, 600)
    order = rng.permutation(len(data.counts))
    order = order[np.argsort(data.labels[order], kind="stable")]
    order = order[: len(order) // 20 * 20].reshape(-1, 20)
    return data.counts[order].sum(1)


def bulk(folder: Path, rng: np.random.Generator) -> Counts:
    """180 samples of three million reads: mixtures of the types of the fetal atlas, gamma shape 8."""
    data = load("mca_fetal", folder, 1_000)
    types = np.stack([data.counts[data.labels == name].mean(0) for name in np.unique(data.labels)])
    types = types[:, (types > 0).sum(0) >= 3]
    mixed = rng.dirichlet(np.full(len(types), 0.3), 180) @ (types / types.sum(1, keepdims=True))
    rates = mixed * rng.lognormal(np.log(3e6), 0.4, (180, 1))
    return rng.poisson(rates * rng.gamma(8.0, 1 / 8, rates.shape))


def proteins(folder: Path, rng: np.random.Generator) -> Counts:
    """Proteins of cite_pbmc10k, without the RNA."""
    counts = np.asarray(read_h5ad(folder / "sc" / "cite_pbmc10k.h5ad").obsm["protein_counts"])
    return counts[rng.permutation(len(counts))[:CELLS]]


def presence(folder: Path, rng: np.random.Generator) -> Counts:
    """Fetal heart: whether a gene was seen, of genes seen in at least a third of the spots."""
    seen = load("heart_fetal_st", folder, 5_000).counts > 0
    return seen[:, seen.mean(0) > 1 / 3]


KINDS: tuple[Callable[[Path, np.random.Generator], Counts], ...] = (
    as_they_are,
    reads,
    shallow,
    two_depths,
    panel,
    metacells,
    bulk,
    proteins,
    presence,
)


def main() -> None:
    args = parser(__doc__).parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    accuracy, samples = [], []
    for seed in args.seeds:
        for make in KINDS:
            counts = make(args.data, np.random.default_rng(seed)).astype(np.float32)
            counts = counts[:, counts.any(0)]
            half = np.where(np.arange(len(counts)) % 2, "one", "other")
            data = Dataset(make.__name__, counts, half)
            hidden = pp.mcar(counts.shape, 0.5, seed=seed)
            answers = {"countsdiff": run_ours(data, hidden, seed, Ours())}
            if make is two_depths:
                answers["countsdiff, told the depth"] = run_ours(data, hidden, seed, Ours(with_labels=True))
            answers |= {name: run_rival(name, data, hidden, seed) for name in RIVALS}
            about = {"counts": make.__name__, "cells × genes": "{} × {}".format(*counts.shape), "seed": seed}
            for method, scores in answers.items():
                shown = {"R²": "r2", "Poisson loss": "poisson_loss", "relative bias": "relative_bias"}
                accuracy.append(about | {"method": method} | {title: scores[name] for title, name in shown.items()})
                if method not in RIVALS:
                    row = {"counts": make.__name__, "seed": seed, "method": method}
                    for title, name in (
                        ("bias", "relative_bias"),
                        ("zeros", "zero_fraction_error"),
                        ("variance", "variance_ratio"),
                    ):
                        row |= {f"{title}, {n} step{'s' * (n > 1)}": scores[f"sample{n}_{name}"] for n in STEPS}
                    row |= {"coverage of 90 %, mean > 1": scores["coverage90"], "PIT KS": scores["pit_ks"]}
                    samples.append(row)
            print(pd.DataFrame(accuracy[-len(answers) :]).to_string(), flush=True)
    kinds = "\n".join(f"- `{make.__name__}`: {make.__doc__}" for make in KINDS)
    lines = ["# Other kinds of counts", f"`python benchmarks/other_counts.py`, seeds {args.seeds}.", kinds]
    lines += ["## The mean", markdown(pd.DataFrame(accuracy)), "## Samples, intervals", markdown(pd.DataFrame(samples))]
    write_page(Path(__file__).parent / "results" / "other_counts.md", *lines)


if __name__ == "__main__":
    main()
