from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure


def draw(table: pd.DataFrame, panels: Sequence[tuple[str, str, str]], path: Path) -> bool:
    """Draw scores of methods, a row for each data set and a column for each score, as PNG.

    A dot is the mean over the seeds, a line their range, a colour a mask.

    Parameters
    ----------
    table
        Rows of one task.
    panels
        Title, estimate and metric of each column.
    path
        File to write.

    Returns
    -------
    bool
        False if there is no number to draw, and no file was written.
    """
    scores = table[table.value.notna()].set_index(["estimate", "metric"]).sort_index()
    panels = [panel for panel in panels if panel[1:] in scores.index]
    if not panels:
        return False
    datasets, masks, methods = (list(dict.fromkeys(table[key])) for key in ("dataset", "mask", "method"))
    colours = {mask: colormaps["viridis"](i / max(len(masks), 2)) for i, mask in enumerate(masks)}
    height = 0.8 + (0.6 + 0.22 * len(methods)) * len(datasets)
    figure = Figure(figsize=(1.5 + 3 * len(panels), height), layout="constrained")
    grid = figure.subplots(len(datasets), len(panels), sharey=True, squeeze=False)
    for dataset, row in zip(datasets, grid, strict=True):
        for (title, estimate, metric), axes in zip(panels, row, strict=True):
            part = scores.loc[[(estimate, metric)]]
            part = part[part.dataset == dataset]
            for (mask, method), values in part.groupby(["mask", "method"])["value"]:
                place = methods.index(method) + 0.6 * ((masks.index(mask) + 0.5) / len(masks) - 0.5)
                axes.plot([values.min(), values.max()], [place, place], color=colours[mask], lw=1)
                axes.plot(values.mean(), place, "o", color=colours[mask], ms=4)
            axes.set_title(title if len(datasets) == 1 else f"{title}, {dataset}", fontsize=9)
            axes.set_yticks(range(len(methods)), methods, fontsize=8)
            axes.set_ylim(len(methods) - 0.5, -0.5)
            axes.tick_params(axis="x", labelsize=8)
            axes.grid(axis="x", color="#eeeeee")
            axes.spines[["top", "right"]].set_visible(False)
    if len(masks) > 1:
        marks = [grid[0, 0].plot([], [], "o", color=colours[mask], ms=4, label=mask)[0] for mask in masks]
        figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    return True
