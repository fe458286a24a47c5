"""Results as a person reads them: Markdown, the same as HTML, and a picture of each task."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from markdown_it import MarkdownIt

from countsdiff.files import atomic

from ._plots import draw
from ._results import FAILURES, PEAK_MEMORY, Results

_UNIT = ["dataset", "mask", "method"]
_STAND_IN = "†"
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; font-size: 13px; overflow-x: auto; }
td, th { border-bottom: 1px solid #ddd; padding: .2rem .6rem; text-align: left; white-space: nowrap; }
img { max-width: 100%; } pre { background: #f4f4f4; overflow-x: auto; padding: .6rem; }"""


def _low(value: float) -> float:
    return value


def _high(value: float) -> float:
    return -value


class Column(NamedTuple):
    """A column of a table; the best value is the one for which `rank` is least."""

    title: str
    estimate: str
    metric: str
    rank: Callable[[float], float]
    plotted: bool = False


class Section(NamedTuple):
    """How a task is shown."""

    title: str
    text: str
    columns: tuple[Column, ...]


_IMPUTATION = (
    Column("RMSE", "mean", "rmse", _low),
    Column("MAE", "mean", "mae", _low),
    Column("bias", "mean", "bias", abs),
    Column("R²", "mean", "r2", _high, plotted=True),
    Column("Poisson loss", "mean", "poisson_loss", _low, plotted=True),
    Column("Spearman", "mean", "spearman_per_cell", _high),
    Column("RMSE, whole counts", "whole counts", "rmse", _low),
    Column("MAE, whole counts", "whole counts", "mae", _low),
    Column("Spearman, whole counts", "whole counts", "spearman_per_cell", _high),
    Column("RMSE, 1 sample", "1 sample", "rmse", _low),
    Column("RMSE, 5 samples", "5 samples", "rmse", _low),
    Column("Spearman, 5 samples", "5 samples", "spearman_per_cell", _high),
    Column("MMD, 1 sample", "1 sample", "mmd", _low),
    Column("energy distance, 1 sample", "1 sample", "energy_distance", _low, plotted=True),
    Column("sliced Wasserstein, 1 sample", "1 sample", "sliced_wasserstein", _low),
    Column("correlation error, 1 sample", "1 sample", "correlation_error", _low),
    Column("scFID, 1 sample", "1 sample", "scfid", _low),
)
_IMPUTATION_NOTE = (
    "Scored on hidden entries, on the scale of counts; from MMD on, whole cells of one sample with the observed "
    "entries in place. Whole counts are the median of methods that know a law or draw, and the mean, rounded, of all "
    "others: zeros then share one rank, which moves Spearman by more than methods differ. "
    f"{_STAND_IN}: the method cannot sample, and its mean stands in. "
    "Compare like with like: one perfect sample has about √2 times the RMSE of the perfect mean. MMD and energy "
    "distance are made for independent samples: between cells and their own imputations they fall a little below 0, "
    "and lower is better all the same. A cell for which a method predicts one number throughout counts as 0 in the "
    "mean of Spearman's correlations.\n\n"
    "Masks hide that many percent of the entries, zeros included. mcar: completely at random. mar: at random given the "
    "cell's depth over the genes that were left out, which methods are not shown (with few shallow genes means are "
    "biased by up to a tenth). mar_block: the paper's, the first genes of random cells, in blocks. mnar_high and "
    "mnar_low: a gene's highest, or lowest, entries."
)
_SECTIONS = {
    "imputation": Section(
        "Imputation of new cells",
        f"Methods saw 80 % of the cells, complete, and imputed the others under each mask. {_IMPUTATION_NOTE}",
        _IMPUTATION,
    ),
    "imputation in_place": Section(
        "Imputation in place",
        f"Entries of all cells were hidden, and methods saw no other cells. {_IMPUTATION_NOTE}",
        _IMPUTATION,
    ),
    "molecular_cv": Section(
        "Molecular cross-validation",
        "A tenth of the molecules was predicted from the others. Open Problems' mean squared error is least for means "
        "of logarithms at the depth of what was held out, a ninth of that of what was seen: `countsdiff log_mean` is "
        "told this depth and says these, all others say means, and may be beaten by predicting no counts at all "
        "(`zeros`). Like is compared with like in the second column, where every method's means, as means of Poisson "
        "laws, are turned into means of logarithms at that depth (of what is none, it says nothing). In their Poisson "
        "loss the arguments are exchanged, so predictions near zero score best: it is here for comparison only.",
        (
            Column("Open Problems' MSE", "mean", "open_problems_mse", _low, plotted=True),
            Column("the same, of Poisson log means", "Poisson log mean", "open_problems_mse", _low, plotted=True),
            Column("Poisson loss", "mean", "poisson_loss", _low, plotted=True),
            Column("their Poisson loss", "mean", "open_problems_poisson", _low),
        ),
    ),
    "null": Section(
        "Null",
        "Each gene's counts were permuted over the cells, so genes have nothing to do with each other. Correlation "
        "beyond that of the permuted counts (none) is invented; output that does not vary over the cells has none (–). "
        "Normalised, every cell was divided by its sum, which ties smooth genes to the noise of the strongest; not "
        "normalised, all cells were divided by the same number.",
        (
            Column("mean absolute correlation, normalised", "mean", "mean_absolute_correlation", _low, plotted=True),
            Column("not normalised", "mean", "mean_absolute_correlation_unnormalised", _low, plotted=True),
        ),
    ),
}


def write_report(results: Results) -> Path:
    """Write ``report.md``, ``report.html`` and a picture for each task into the folder of the results.

    Shown are means over the seeds ± half their range, with the mean ends of the bootstrap intervals over cells where
    there are some; the best of every data set and mask is bold.

    Parameters
    ----------
    results
        Results of :func:`run`.

    Returns
    -------
    pathlib.Path
        Of ``report.html``.
    """
    text = "\n".join(_lines(results)) + "\n"
    with atomic(results.folder / "report.md") as file:
        file.write_text(text, encoding="utf-8")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    page = results.folder / "report.html"
    with atomic(page) as file:
        file.write_text(
            f'<!doctype html>\n<meta charset="utf-8">\n<title>Benchmark</title>\n<style>\n{_STYLE}\n</style>\n{body}',
            encoding="utf-8",
        )
    return page


def _lines(results: Results) -> Iterator[str]:
    table = results.table()
    yield "# Benchmark of countsdiff and its rivals\n"
    yield "Mean over the seeds ± half their range [95 % bootstrap interval over cells]; the best is **bold**.\n"
    yield from ("Made by\n\n```sh", *results.commands(), "```\n")
    yield from _markdown(
        ("data set", "cells", "genes", "labels"),
        [(name, f"{r.n_obs:,}", f"{r.n_vars:,}", f"{r.n_labels}") for name, r in results.datasets().items()],
    )
    for task, section in _SECTIONS.items():
        part = table[table.task == task]
        if part.empty:
            continue
        yield f"\n## {section.title}\n\n{section.text}\n"
        yield from _score_table(part, section.columns)
        picture = f"{task.replace(' ', '_')}.png"
        if draw(part, [column[:3] for column in section.columns if column.plotted], results.folder / picture):
            yield f"\n![{section.title}]({picture})"
    yield "\n## Time and memory\n"
    yield (
        "Of one process for each method, on this machine; seconds include the import of what the method needs, memory "
        "that of Python, libraries and data. Fitting is done once for all masks of cells that were not fitted; seconds "
        "of imputing and sampling are for each mask.\n"
    )
    yield from _cost_table(table)
    failed = table[table.metric.isin(FAILURES)]
    if not failed.empty:
        yield "\n## Absent and failed\n"
        columns = ["task", *_UNIT, "seed", "metric", "note"]
        yield from _markdown([*columns[:5], "", "reason"], failed[columns].astype(str).itertuples(index=False))


def _score_table(table: pd.DataFrame, columns: tuple[Column, ...]) -> Iterator[str]:
    values = dict(iter(table.groupby([*_UNIT, "estimate", "metric"], sort=False)))
    best = {}
    for group in {key[:2] for key in values}:
        for column in columns:
            means = [values[key].value.mean() for key in values if key[:2] == group and key[3:] == column[1:3]]
            best[group, column.title] = min((column.rank(mean) for mean in means if pd.notna(mean)), default=None)

    def cell(unit: tuple[str, str, str], column: Column) -> str:
        rows = values.get((*unit, *column[1:3]))
        if rows is None or rows.value.isna().all():
            return "–"
        mean = rows.value.mean()
        text = f"{mean:.4g}" + (f" ± {(rows.value.max() - rows.value.min()) / 2:.2g}" if len(rows) > 1 else "")
        ends = [values.get((*unit, column.estimate, f"{column.metric}_{end}")) for end in ("low", "high")]
        if ends[0] is not None and ends[1] is not None:
            text += f" [{ends[0].value.mean():.4g}, {ends[1].value.mean():.4g}]"
        text += _STAND_IN if rows.note.any() else ""
        return f"**{text}**" if column.rank(mean) == best[unit[:2], column.title] else text

    body = []
    for unit, group in table.groupby(_UNIT, sort=False):
        answered = group[~group.metric.isin(FAILURES)]
        if answered.empty:
            shown = [f"{group.metric.iloc[-1]}: {group.note.iloc[-1]}", *[""] * (len(columns) - 1)]
        else:
            shown = [cell(unit, column) for column in columns]
        body.append((*unit, str(answered.seed.nunique()), *shown))
    body.sort(key=lambda row: row[:2])  # stable: methods stay in their order
    yield from _markdown((*_UNIT, "seeds", *(column.title for column in columns)), body)


def _cost_table(table: pd.DataFrame) -> Iterator[str]:
    seconds = ("fit_seconds", "impute_seconds", "sample_seconds")
    keys = ["task", "dataset", "method"]
    body = []
    for key, rows in table[table.metric == PEAK_MEMORY].groupby(keys, sort=False):
        costs = table[(table[keys] == list(key)).all(axis=1)].groupby("metric").value.mean()
        shown = (f"{costs[metric]:.2f}" if metric in costs else "–" for metric in seconds)
        body.append((*key, *shown, f"{rows.value.max():,.0f}"))
    yield from _markdown((*keys, "fit (s)", "impute (s)", "5 samples (s)", "peak memory (MiB)"), body)


def _markdown(header: Sequence[str], body: Iterable[Iterable[object]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|---" * len(header) + "|"
    for row in body:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
