"""What all plots share: where to draw, how to end, and how to name a matrix."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from countsdiff.counts import by_position, dense_rows, is_on_disk
from countsdiff.layers import get_layer
from countsdiff.matrix import check_is_matrix, to_dense

BLUE, ORANGE, GREY = "#2a6ebb", "#e07b39", "#8a8a8a"


def start(ax: Axes | None, size: tuple[float, float] = (4.2, 3.8)) -> Axes:
    """Axes to draw on: those given, or new ones."""
    axes = plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def finish(axes: Any, ax: Any, show: bool | None, save: str | Path | None) -> Any:
    """Save and show as asked; return the axes.

    Parameters
    ----------
    axes
        Axes drawn on, or several.
    ax
        Axes that the caller gave, if any: whoever gives axes shows them, too.
    show
        ``None``: show unless axes or a file were given, or scanpy was told not to (``scanpy.settings.autoshow``).
    save
        File to write.

    Raises
    ------
    ValueError
        If `save` has no ending, which says what kind of file to write.
    """
    if save is not None and (isinstance(save, bool) or not Path(save).suffix):
        raise ValueError(f"save is the name of a file with its ending, such as 'plot.png'; got {save!r}.")
    figure = np.atleast_1d(axes)[0].figure
    figure = getattr(figure, "figure", None) or figure  # of a subfigure the whole, which can be saved
    if save is not None:
        figure.savefig(save, dpi=150, bbox_inches="tight")
    scanpy = sys.modules.get("scanpy")
    if show is None:
        show = ax is None and save is None and (scanpy is None or scanpy.settings.autoshow)
    if show:
        plt.show()
    return axes


def dense(adata: AnnData, which: Any) -> NDArray[np.float64]:
    """A matrix of the shape of `adata`: a layer by its name, ``X`` by ``None``, or the matrix itself.

    A data frame goes by its names.

    Raises
    ------
    KeyError
        If there is no such layer; the message lists those there are.
    ValueError
        If the shape is another.
    TypeError
        If there is no AnnData.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"This plot takes AnnData; got {type(adata).__name__}: of MuData one modality, mdata['rna'].")
    check_is_matrix(matrix=which)
    matrix = by_position(get_layer(adata, None) if which is None else which, adata)
    array = to_dense(dense_rows(matrix, np.arange(adata.n_obs)) if is_on_disk(matrix) else matrix, np.float64)
    if array.shape != adata.shape:
        raise ValueError(f"The matrix has shape {array.shape}, the data {adata.shape}.")
    return array
