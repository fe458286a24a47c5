import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Option

from countsdiff.cli._io import check_folder, say, write
from countsdiff.files import atomic

if TYPE_CHECKING:
    from anndata import AnnData

_SHARE = 0.5
_BASELINES = {
    "gene_mean": "gene mean",
    "size_factor_mean": "size-factor mean",
    "label_mean": "label mean",
    "knn": "kNN smoothing",
}
_OURS = "CountsDiff"
_COLUMNS = {
    "r2": ("R²", max),
    "poisson_loss": ("Poisson loss", min),
    "rmse": ("RMSE", min),
    "spearman_per_cell": ("Spearman", max),
}


class Row(NamedTuple):
    """What a method made of the hidden entries."""

    prediction: Any
    scores: dict[str, float]
    seconds: float


def demo(
    out: Annotated[Path, Option(metavar="DIR", help="Folder for imputed.h5ad and demo.png.")] = Path("quickstart"),
    steps: Annotated[
        int | None, Option(min=1, help="Length of training.", show_default="from the number of cells")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Hide half of the counts of 2,638 blood cells, impute them, and compare with the truth and simpler methods."""
    start = time.perf_counter()
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)

    from countsdiff import datasets, pp
    from countsdiff.cli._training import progress_bar, set_up

    set_up()
    full = datasets.pbmc3k()
    truth = full[:, full.var["highly_variable"]].copy()
    del truth.layers["counts"]  # they would be the truth still when those in X are hidden
    hidden = pp.mcar(truth.shape, _SHARE, seed=0)
    data = pp.hide_entries(truth, hidden)
    say(f"PBMC 3k: {data.n_obs:,} cells × {data.n_vars:,} genes, {hidden.sum():,} entries hidden, zeros included.")

    begin = time.perf_counter()
    with progress_bar(quiet=quiet) as arguments:
        pp.impute(data, layer=None, missing_layer="hidden", max_steps=steps, seed=0, **arguments)
    rows = _baselines(data, truth, hidden) | {_OURS: _row(truth, hidden, data.layers["imputed"], begin)}
    _print(rows)

    data.layers["truth"] = truth.X
    result, picture = out / "imputed.h5ad", out / "demo.png"
    write(data, result)
    with atomic(picture) as temporary:
        _draw(rows, truth.X.toarray()[hidden], hidden, temporary)
    say(
        f"Imputed {hidden.sum():,} entries of {data.n_obs:,} cells × {data.n_vars:,} genes in "
        f"{time.perf_counter() - start:.0f} s.",
        f"Wrote {result} (layers imputed, hidden and truth) and {picture}.",
    )


def _row(truth: "AnnData", hidden: Any, prediction: Any, begin: float) -> Row:
    from countsdiff import metrics

    seconds = time.perf_counter() - begin
    return Row(prediction, metrics.evaluate(truth.X, prediction, hidden), seconds)


def _baselines(data: "AnnData", truth: "AnnData", hidden: Any) -> dict[str, Row]:
    from countsdiff.baselines import get_baseline

    counts, rows = data.X.toarray(), {}
    for name, label in _BASELINES.items():
        begin = time.perf_counter()
        prediction = get_baseline(name).impute(counts, hidden, labels=data.obs["cell_type"])
        rows[label] = _row(truth, hidden, prediction, begin)
    return rows


def _print(rows: dict[str, Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    best = {name: pick(row.scores[name] for row in rows.values()) for name, (_, pick) in _COLUMNS.items()}
    caption = "The label mean is told the cell types, the other methods are not."
    table = Table("Method", title="Hidden counts, predicted", caption=caption)
    for label, pick in _COLUMNS.values():
        table.add_column(f"{label} {'↑' if pick is max else '↓'}", justify="right")
    table.add_column("Seconds", justify="right")
    for method, row in rows.items():
        cells = [
            f"[bold]{row.scores[name]:.3f}[/]" if row.scores[name] == best[name] else f"{row.scores[name]:.3f}"
            for name in _COLUMNS
        ]
        table.add_row(method, *cells, f"{row.seconds:.1f}")
    Console().print(table)


def _draw(rows: dict[str, Row], truth: Any, hidden: Any, path: Path) -> None:
    """Draw the mean truth by prediction, and two scores, of all methods."""
    import numpy as np
    from matplotlib.figure import Figure

    colours = dict(zip(rows, ["#c9c9c9", "#a9b8c4", "#7f9bb3", "#54799a", "#d1495b"], strict=True))
    figure = Figure(figsize=(11, 4), layout="constrained")
    by_prediction, *bars = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
    for method, row in rows.items():
        predicted = np.asarray(row.prediction)[hidden]
        bins = np.array_split(np.argsort(predicted), 40)
        x = [predicted[b].mean() for b in bins]
        y = [truth[b].mean() for b in bins]
        by_prediction.plot(x, y, color=colours[method], label=method, lw=2 if method == _OURS else 1.2)
    by_prediction.axline((1, 1), slope=1, color="black", lw=0.8, ls=":")
    by_prediction.set(
        xscale="log", yscale="log", xlabel="predicted count (bins of equal size)", ylabel="mean true count"
    )
    by_prediction.legend(frameon=False, fontsize=8)
    for axes, name in zip(bars, ("r2", "poisson_loss"), strict=True):
        label, pick = _COLUMNS[name]
        shown = axes.barh(list(rows), [row.scores[name] for row in rows.values()], color=list(colours.values()))
        axes.bar_label(shown, fmt="%.3f", padding=3, fontsize=8)
        axes.set_title(f"{label} ({'higher' if pick is max else 'lower'} is better)", fontsize=10)
        axes.set_yticks([])
        axes.margins(x=0.2)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
