"""Half of all entries hidden at random: accuracy, calibration and time of countsdiff and its rivals.

python benchmarks/imputation.py pbmc3k heart_fetal_st cite_pbmc10k mca_fetal --seeds 1 2 3

appends tidy rows (dataset, method, seed, metric, value) to benchmarks/results/imputation.csv, skipping what stands
there already, and writes the tables of benchmarks/results/imputation.md.
"""

import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _markdown import write_page
from _protocol import load, parser
from scipy import sparse, stats

from countsdiff import CountsDiffImputer, metrics, pp
from countsdiff.baselines import get_baseline


@dataclass(frozen=True)
class Ours:
    """How countsdiff is run."""

    with_labels: bool = False
    backbone: str = "mlp"
    width: int | None = None
    precision: str = "32-true"


OURS = {"countsdiff": Ours(), "countsdiff+labels": Ours(with_labels=True)}
# run where they are asked for: they need a GPU
ON_GPU = {
    "countsdiff, bf16": Ours(precision="bf16-mixed"),
    "countsdiff, transformer": Ours(backbone="transformer"),
    "countsdiff, transformer, bf16": Ours(backbone="transformer", precision="bf16-mixed"),
    "countsdiff, transformer 128, bf16": Ours(backbone="transformer", width=128, precision="bf16-mixed"),
}
VARIANTS = OURS | ON_GPU
RIVALS = ("gene_mean", "size_factor_mean", "label_mean", "knn", "magic_sqrt", "magic_log", "magic_none", "alra", "scvi")
STEPS = (1, 5, 20)


def run_ours(data, hidden, seed: int, how: Ours) -> dict[str, float]:
    """Train, impute, and look at samples and intervals."""
    adata = ad.AnnData(sparse.csr_matrix(np.where(hidden, 0, data.counts)))
    adata.layers["hidden"] = sparse.csr_matrix(hidden)
    adata.obs["label"] = data.labels
    start = time.perf_counter()
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden", labels_key="label" if how.with_labels else None)
    model = CountsDiffImputer(adata, backbone=how.backbone, width=how.width)
    model.train(seed=seed, precision=how.precision, enable_progress_bar=False)
    trained = time.perf_counter()
    imputed = model.impute(inplace=False)
    done = time.perf_counter()
    scores = metrics.evaluate(data.counts, imputed, hidden)
    scores |= {"seconds": done - start, "impute_seconds": done - trained, "steps": model.trainer.global_step}
    scores["cells_per_second"] = adata.n_obs / (done - trained)
    truth = data.counts[hidden].astype(np.float64)
    for n_steps in STEPS:
        draw = model.impute(output="sample", n_steps=n_steps, seed=seed, inplace=False)[hidden].astype(np.float64)
        if (draw < 0).any() or (draw != np.round(draw)).any():
            raise AssertionError("a sample is not a count")
        scores[f"sample{n_steps}_relative_bias"] = metrics.relative_bias(truth, draw)
        scores[f"sample{n_steps}_zero_fraction_error"] = metrics.zero_fraction_error(truth, draw)
        scores[f"sample{n_steps}_variance_ratio"] = metrics.variance_ratio(truth, draw)
    spread = model.impute(return_std=True, interval=0.9, inplace=False)
    mean, std = (spread[k][hidden].astype(np.float64) for k in ("imputed", "imputed_std"))
    large = mean > 1
    scores["coverage90"] = metrics.interval_coverage(
        truth[large], spread["imputed_lower"][hidden][large], spread["imputed_upper"][hidden][large]
    )
    shape = mean**2 / np.maximum(std**2 - mean, 1e-6 * mean**2)
    law = stats.nbinom(shape, shape / (shape + mean))
    below, at = law.cdf(truth - 1), law.cdf(truth)
    scores["pit_ks"] = metrics.pit_ks(below, at, seed=seed)
    scores["pit_ks_above_1"] = metrics.pit_ks(below[large], at[large], seed=seed)
    return scores


def run_rival(method: str, data, hidden, seed: int) -> dict[str, float]:
    start = time.perf_counter()
    counts = np.where(hidden, np.float32(0), data.counts)
    imputed = get_baseline(method).impute(counts, hidden, labels=data.labels, seed=seed)
    seconds = time.perf_counter() - start
    return metrics.evaluate(data.counts, imputed, hidden) | {"seconds": seconds}


def score(name: str, method: str, data_dir: Path, seed: int) -> pd.DataFrame:
    data = load(name, data_dir)
    hidden = pp.mcar(data.counts.shape, 0.5, seed=seed)
    if method in VARIANTS:
        scores = run_ours(data, hidden, seed, VARIANTS[method])
    else:
        scores = run_rival(method, data, hidden, seed)
    row = {"dataset": name, "method": method, "seed": seed}
    return pd.DataFrame([row | {"metric": m, "value": float(v)} for m, v in scores.items()])


def report(rows: pd.DataFrame) -> str:
    """Markdown tables: mean over the seeds ± half their range."""

    def table(metrics_shown: dict[str, str], methods: list[str]) -> str:
        part = rows[rows.metric.isin(metrics_shown) & rows.method.isin(methods)]
        lines = ["| dataset | method | seeds | " + " | ".join(metrics_shown.values()) + " |"]
        lines.append("|---" * (3 + len(metrics_shown)) + "|")
        for (name, method), group in part.groupby(["dataset", "method"], sort=False):
            cells = []
            for metric in metrics_shown:
                values = group[group.metric == metric].value
                spread = f" ± {(values.max() - values.min()) / 2:.2g}" if len(values) > 1 else ""
                cells.append(f"{values.mean():.4g}{spread}" if len(values) else "")
            lines.append(f"| {name} | {method} | {group.seed.nunique()} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    accuracy = {
        "r2": "R²",
        "poisson_loss": "Poisson loss",
        "rmse": "RMSE",
        "mae": "MAE",
        "relative_bias": "relative bias",
        "spearman_per_cell": "Spearman per cell",
        "seconds": "seconds",
    }
    samples = {
        f"sample{n}_{m}": f"{label}, {n} step{'s' * (n > 1)}"
        for m, label in {"relative_bias": "bias", "zero_fraction_error": "zeros", "variance_ratio": "variance"}.items()
        for n in STEPS
    }
    calibration = {
        "coverage90": "coverage of 90 % intervals, mean > 1",
        "pit_ks": "PIT KS, all",
        "pit_ks_above_1": "PIT KS, mean > 1",
        "cells_per_second": "imputed cells/s",
        "steps": "training steps",
    }
    return "\n\n".join(
        [
            "# Half of all entries hidden at random, 1,000 genes",
            "Written by `python benchmarks/imputation.py`; mean over the seeds ± half their range, scored on hidden "
            "entries (`numpy.random.default_rng(seed)`). `label_mean` and `countsdiff+labels` are given the labels. "
            "Times on one thread of a machine that did other work, too, on several days, by which they vary threefold: "
            "timing.md has ours and scVI's side by side. A method without a row was not run there.",
            "## Accuracy of the mean, on the scale of counts",
            table(accuracy, [*VARIANTS, *RIVALS]),
            "## Samples of countsdiff against the hidden truth",
            table(samples, list(VARIANTS)),
            "## Calibration and speed",
            table(calibration, list(VARIANTS)),
        ]
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--methods", nargs="+", default=[*OURS, *RIVALS], help=f"default: all; {', '.join(map(repr, ON_GPU))} on a GPU"
    )
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "imputation.csv")
    args = arguments.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    keys = ["dataset", "method", "seed"]
    for name in args.datasets:
        for seed in args.seeds:
            for method in args.methods:
                done = pd.read_csv(args.out)[keys] if args.out.exists() else pd.DataFrame(columns=keys)
                if ((done.dataset == name) & (done.method == method) & (done.seed == seed)).any():
                    continue
                rows = score(name, method, args.data, seed)
                rows.to_csv(args.out, mode="a", header=not args.out.exists(), index=False)
                shown = rows.set_index("metric").value.round(4)
                print(
                    name, method, "seed", seed, shown.reindex(["r2", "poisson_loss", "seconds"]).to_dict(), flush=True
                )
    rows = pd.read_csv(args.out)
    order = {name: i for i, name in enumerate([*VARIANTS, *RIVALS])}
    rows = rows.sort_values(["dataset", "method", "seed"], key=lambda c: c.map(order) if c.name == "method" else c)
    write_page(args.out.with_suffix(".md"), report(rows))


if __name__ == "__main__":
    main()
