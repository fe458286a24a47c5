"""What imputation did to cells and genes."""

from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy import stats

from countsdiff.layers import require_columns
from countsdiff.metrics import log_normalise

from .canvas import BLUE, GREY, dense, finish, start


def zeros_filled(
    adata: AnnData,
    groupby: str,
    *,
    counts: Any = None,
    imputed: Any = "imputed",
    hidden: Any = None,
    threshold: float = 0.5,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw the share of zeros that imputation turned into something, label by label.

    A label of which most zeros are filled is one to distrust: zeros are evidence, and most of them are true.

    Parameters
    ----------
    adata
        Imputed data.
    groupby
        Column of ``adata.obs`` with the labels.
    counts, imputed
        Counts before, by default ``X``, and after imputation; each a layer's name or a matrix.
    hidden
        Entries that were missing, whose zeros stand for nothing; a layer's name or a boolean matrix.
    threshold
        Least value of a filled zero; a half rounds to a count.
    ax, show, save
        As for :func:`~countsdiff.pl.recovery`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    KeyError
        If there is no such column or layer.
    ValueError
        If no cell has a value in the column.
    """
    require_columns(adata, [groupby])
    zero = dense(adata, counts) == 0
    if hidden is not None:
        zero &= dense(adata, hidden) == 0
    filled = zero & (dense(adata, imputed) >= threshold)
    groups = adata.obs.groupby(groupby, observed=True).indices
    if not groups:
        raise ValueError(f"No cell has a value in adata.obs[{groupby!r}].")
    shares = {str(g): filled[c].sum() / max(zero[c].sum(), 1) for g, c in groups.items()}
    names = sorted(shares, key=lambda g: shares[g])
    axes = start(ax, (5.0, 0.9 + 0.3 * len(names)))
    bars = axes.barh(names, [100 * shares[g] for g in names], color=BLUE, height=0.7)
    sizes = {str(g): len(c) for g, c in groups.items()}
    axes.bar_label(bars, [f"{100 * shares[g]:.1f} %  ({sizes[g]:,} cells)" for g in names], padding=3, fontsize=8)
    overall = 100 * filled.sum() / max(zero.sum(), 1)
    axes.axvline(overall, color=GREY, lw=1, ls="--", zorder=0)
    axes.set_xlim(0, max(1.5 * 100 * max(shares.values()), 1e-3))
    axes.set(xlabel=f"zeros filled with {threshold:g} counts or more, %")
    axes.set_title(f"all cells: {overall:.1f} %", fontsize=10)
    return finish(axes, ax, show, save)


def gene_gene(
    adata: AnnData,
    x: str,
    y: str,
    *,
    counts: Any = None,
    imputed: Any = "imputed",
    null: Any = "null",
    ax: Any = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Any:
    """Draw two genes against each other: as counted, as imputed, and as imputed after permutation of the genes.

    Smoothers invent correlations. Compare the correlation that they show in your data with the one they show in counts
    that were permuted over cells, gene by gene.

    Parameters
    ----------
    adata
        Imputed data.
    x, y
        Names of the genes.
    counts, imputed
        Counts before, by default ``X``, and after imputation; each a layer's name or a matrix.
    null
        The same imputation, training included, of ``np.random.default_rng(0).permuted(counts, axis=0)``; a layer's name
        or a matrix.
    ax
        Three axes.
    show, save
        As for :func:`~countsdiff.pl.recovery`.

    Returns
    -------
    array of three matplotlib.axes.Axes

    Raises
    ------
    KeyError
        If a gene or a layer does not exist.
    """
    for gene in (x, y):
        if gene not in adata.var_names:
            raise KeyError(f"adata.var_names has no gene {gene!r}.")
    if isinstance(null, str) and null not in adata.layers:
        raise KeyError(
            f"adata.layers has no {null!r}: impute numpy.random.default_rng(0).permuted(counts, axis=0) in the same "
            "way, and give the result as null."
        )
    axes = plt.subplots(1, 3, figsize=(9.0, 3.2), layout="constrained")[1] if ax is None else np.asarray(ax)
    if axes.shape != (3,):
        raise ValueError(f"gene_gene draws on three axes; got an array of shape {axes.shape}.")
    columns = adata.var_names.get_indexer([x, y])
    for axis, which, title in zip(
        axes, (counts, imputed, null), ("as counted", "imputed", "imputed, genes permuted"), strict=True
    ):
        values = log_normalise(dense(adata, which))[:, columns]
        start(axis).scatter(values[:, 0], values[:, 1], s=5, alpha=0.35, lw=0, color=GREY if which is null else BLUE)
        rho = stats.spearmanr(*values.T).statistic
        axis.set_title(f"{title}\nSpearman {rho:.2f}", fontsize=10)
        axis.set(xlabel=f"{x} (log)", ylabel=f"{y} (log)")
    return finish(axes, ax, show, save)


def uncertainty(
    adata: AnnData,
    *,
    imputed: str = "imputed",
    gene: str | None = None,
    basis: str = "X_umap",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Colour an embedding by how unsure imputation is of each cell.

    Parameters
    ----------
    adata
        Data imputed with ``return_std=True``.
    imputed
        Name of the layer with predictions; their standard deviations are in ``{imputed}_std``.
    gene
        Gene whose standard deviation to show. Default: the sum of the standard deviations of the cell's imputed
        entries, divided by the sum of these entries.
    basis
        Embedding in ``adata.obsm``; ``"umap"`` is ``"X_umap"``, as for scanpy.
    ax, show, save
        As for :func:`~countsdiff.pl.recovery`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    KeyError
        If there is no such embedding, layer or gene.
    ValueError
        If the embedding has one column only.
    """
    if basis not in adata.obsm and f"X_{basis}" in adata.obsm:
        basis = f"X_{basis}"
    if basis not in adata.obsm:
        raise KeyError(f"adata.obsm has no {basis!r}; it has {list(adata.obsm) or 'nothing'}.")
    if (n_axes := np.shape(adata.obsm[basis])[1]) < 2:
        raise ValueError(f"adata.obsm[{basis!r}] has {n_axes} column; a picture needs two.")
    std = dense(adata, f"{imputed}_std")
    if gene is None:
        at = std > 0
        of_cells, means = (np.where(at, values, 0.0).sum(1) for values in (std, dense(adata, imputed)))
        colour = of_cells / np.maximum(means, 1e-12)
        label = "standard deviation over mean, imputed entries"
    elif gene in adata.var_names:
        colour, label = std[:, adata.var_names.get_loc(gene)], f"standard deviation of {gene}"
    else:
        raise KeyError(f"adata.var_names has no gene {gene!r}.")
    axes = start(ax, (5.0, 4.0))
    order = np.argsort(colour)  # the most uncertain cells on top
    points = np.asarray(adata.obsm[basis])[order, :2]
    limits = np.nanquantile(colour, [0.01, 0.99])  # a gene may not have been imputed in all cells
    drawn = axes.scatter(
        points[:, 0],
        points[:, 1],
        c=colour[order],
        s=max(1.0, 12_000 / len(points) ** 0.95),
        lw=0,
        cmap="magma_r",
        vmin=limits[0],
        vmax=limits[1],
    )
    axes.figure.colorbar(drawn, ax=axes, label=label, shrink=0.85, extend="both")
    name = basis.removeprefix("X_").upper()
    axes.set(xticks=[], yticks=[], xlabel=f"{name}1", ylabel=f"{name}2")
    return finish(axes, ax, show, save)
