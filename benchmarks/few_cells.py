"""Few cells: countsdiff beside methods that fit less, on part of PBMC 3k and on reads of full length, simulated.

python benchmarks/few_cells.py

Entries are hidden at random; the mean is scored. The simulated cells are of five types, their counts large (mean 40 and
more) and far more spread than molecules are (gamma shape one half). Writes benchmarks/results/few_cells.md.
"""

import argparse
import itertools
import logging
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _markdown import markdown, write_page
from scipy import sparse

from countsdiff import CountsDiffImputer, datasets, metrics, pp
from countsdiff.baselines import get_baseline

RIVALS = ("size_factor_mean", "knn", "magic_sqrt", "magic_log")


def molecules(n_obs: int, seed: int) -> np.ndarray:
    """Cells of PBMC 3k, its thousand most variable genes."""
    full = datasets.pbmc3k()
    counts = full[:, full.var["highly_variable"]].X.toarray()
    return counts[np.random.default_rng(seed).permutation(len(counts))[:n_obs]]


def reads(n_obs: int, seed: int, n_vars: int = 1_000, n_types: int = 5) -> np.ndarray:
    """Counts as of full-length protocols."""
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(np.log(40.0), 1.2, n_vars))
    profiles = base * np.exp(rng.normal(0, 1.2, (n_types, n_vars)) * (rng.random((n_types, n_vars)) < 0.3))
    rates = profiles[rng.integers(n_types, size=n_obs)] * rng.gamma(4.0, 0.25, (n_obs, 1))
    return rng.poisson(rates * rng.gamma(0.5, 2.0, (n_obs, n_vars)))


def imputed(counts: np.ndarray, hidden: np.ndarray, seed: int) -> np.ndarray:
    """Mean of countsdiff."""
    adata = pp.hide_entries(ad.AnnData(sparse.csr_matrix(counts)), hidden)
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = CountsDiffImputer(adata)
    model.train(seed=seed, enable_progress_bar=False, accelerator="cpu")
    return model.impute(inplace=False)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, nargs="+", default=[1])
    seeds = options.parse_args().seeds
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = []
    for make, n_obs, share, seed in itertools.product((molecules, reads), (200, 400, 800), (0.1, 0.5), seeds):
        counts = make(n_obs, seed).astype(np.float32)
        counts = counts[:, counts.any(0)]
        hidden = pp.mcar(counts.shape, share, seed=seed)
        seen = np.where(hidden, np.float32(0), counts)
        answers = {name: get_baseline(name).impute(seen, hidden, seed=seed) for name in RIVALS}
        answers["countsdiff"] = imputed(counts, hidden, seed)
        for method, answer in answers.items():
            scores = metrics.evaluate(counts, answer, hidden)
            row = {"data": make.__name__, "cells": n_obs, "hidden": share, "method": method}
            rows.append(row | {"R²": scores["r2"], "Poisson loss": scores["poisson_loss"]})
        print(pd.DataFrame(rows[-len(answers) :]).to_string(), flush=True)
    table = pd.DataFrame(rows).groupby(["data", "cells", "hidden", "method"], sort=False).mean().reset_index()
    lines = ["# Few cells", f"`python benchmarks/few_cells.py`, means of the seeds {seeds}.", __doc__.split("\n\n")[2]]
    write_page(Path(__file__).parent / "results" / "few_cells.md", *lines, markdown(table))


if __name__ == "__main__":
    main()
