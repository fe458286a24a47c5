"""What the scripts of the paper's experiments share."""

import argparse
import logging
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from countsdiff import metrics

sys.path.insert(0, str(Path(__file__).parents[1]))
from _markdown import markdown, write_page
from _protocol import Dataset, load

RESULTS = Path(__file__).parents[1] / "results" / "paper"
__all__ = ["RESULTS", "arguments", "as_adata", "load", "markdown", "score", "split", "write"]


def arguments(description: str | None, seeds: list[int]) -> argparse.Namespace:
    """Parse ``--data`` and ``--seeds``, and silence what trains."""
    from _protocol import parser

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    result = parser(description)
    result.set_defaults(seeds=seeds)
    RESULTS.mkdir(parents=True, exist_ok=True)
    return result.parse_args()


def split(n_obs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four fifths of the cells to train on, one fifth to test on."""
    order = np.random.default_rng(seed).permutation(n_obs)
    return np.sort(order[n_obs // 5 :]), np.sort(order[: n_obs // 5])


def as_adata(data: Dataset, rows: np.ndarray) -> ad.AnnData:
    """Some cells of a data set, with their labels."""
    result = ad.AnnData(sparse.csr_matrix(data.counts[rows]))
    result.obs_names = [f"cell {row}" for row in rows]
    if data.labels is not None:
        result.obs["label"] = data.labels[rows]
    return result


def score(truth: np.ndarray, answer: np.ndarray, hidden: np.ndarray) -> dict[str, float]:
    """Accuracy and law of the hidden entries."""
    scores = metrics.evaluate(truth, answer, hidden)
    x, y = truth[hidden].astype(np.float64), answer[hidden].astype(np.float64)
    return {
        "rmse": scores["rmse"],
        "spearman": scores["spearman_per_cell"],
        "bias": scores["relative_bias"],
        "zeros": metrics.zero_fraction_error(x, y),
        "variance": metrics.variance_ratio(x, y),
    }


def write(name: str, title: str, rows: list[dict], by: list[str], text: str = "") -> None:
    """Write all rows to a CSV, and their means over the seeds to a Markdown table."""
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / f"{name}.csv", index=False)
    means = table.drop(columns="seed").groupby(by, sort=False).mean().reset_index()
    seeds = ", ".join(str(seed) for seed in sorted(table.seed.unique()))
    origin = f"Written by `python benchmarks/paper/{name}.py`; means over seeds {seeds}. {text}"
    write_page(RESULTS / f"{name}.md", f"# {title}", origin, markdown(means))
