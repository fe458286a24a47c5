from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from countsdiff.counts import by_position
from countsdiff.layers import check_key, check_not_read, get_layer
from countsdiff.matrix import check_is_matrix, to_dense

# the paper's blocks by the share they hide in all: shares of the cells, and of the genes hidden in them
_BLOCKS = {
    0.1: ([0.05, 0.2, 0.3], [0.4, 0.25, 0.1]),
    0.25: ([0.05, 0.1, 0.2, 0.3], [0.6, 0.5, 0.4, 0.3]),
}


def mcar(shape: tuple[int, int], share: float, *, seed: int = 0, among: Any = None) -> NDArray[np.bool_]:
    """Choose entries to hide completely at random, zeros included.

    Parameters
    ----------
    shape
        ``(n_obs, n_vars)``.
    share
        Probability of each entry to be hidden, in [0, 1].
    seed
        Seed of the choice: an entry is hidden where ``numpy.random.default_rng(seed).random(shape) <=
        share``.
    among
        Boolean matrix of the given shape, dense or sparse: the entries that may be hidden; ``None`` for all.

    Returns
    -------
    numpy.ndarray
        Boolean, of the given shape, True where hidden.

    Raises
    ------
    ValueError
        If `share` is not in [0, 1], or `among` has another shape or is not boolean.
    TypeError
        If `shape` is no pair.
    """
    check_share(share)
    if not isinstance(shape, tuple | list):
        raise TypeError(f"shape is a pair of numbers, such as adata.shape; got {type(shape).__name__}")
    return (np.random.default_rng(seed).random(shape) <= share) & _eligible(among, shape)


def mar(covariate: Any, n_vars: int, share: float, *, seed: int = 0) -> NDArray[np.bool_]:
    """Choose entries to hide at random given a covariate of the cells: MAR in Rubin's sense.

    With z the cell's rank by the covariate, scaled to [-1, 1], an entry is hidden with probability
    ``share + slope min(share, 1 - share) z``, the slope drawn evenly from [-1, 1] for each gene. Counts play no part
    beyond what the covariate says of them, and every gene is hidden in an expected `share` of the cells.

    Parameters
    ----------
    covariate
        A number or a category for each cell, shape ``(n_obs,)``, that stays visible: age or batch, say. The depth of
        cells is none if it sums counts that get hidden. Categories are taken in their order, or in that of the
        alphabet.
    n_vars
        Number of genes.
    share
        Expected share of hidden entries, in [0, 1].
    seed
        Seed of the slopes and of the choice.

    Returns
    -------
    numpy.ndarray
        Boolean, shape ``(n_obs, n_vars)``, True where hidden.

    Raises
    ------
    ValueError
        If `share` is not in [0, 1], or `covariate` is not one-dimensional or holds a value that is not finite.

    References
    ----------
    Rubin (1976), Inference and missing data, Biometrika 63, 581-592.
    """
    check_share(share)
    values = np.asarray(covariate)
    if values.ndim != 1:
        raise ValueError(f"covariate has shape {values.shape}; pass one number for each cell, shape (n_obs,)")
    if values.dtype.kind not in "biuf":
        categories = pd.Categorical(covariate)  # in the order that they have, or else that of the alphabet
        values = np.where(categories.codes < 0, np.nan, categories.codes)
    values = values.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise ValueError(
            f"covariate holds {values[wrong[0]]} for cell {wrong[0]}; MAR needs one that is fully observed"
        )
    rng = np.random.default_rng(seed)
    slope = rng.uniform(-1, 1, n_vars)
    z = (2 * rankdata(values) - 1) / len(values) - 1  # its mean is 0, ties or not
    return rng.random((len(values), n_vars)) < share + min(share, 1 - share) * z[:, None] * slope


def mar_block(shape: tuple[int, int], share: float, *, seed: int = 0) -> NDArray[np.bool_]:
    """Choose the entries that the paper calls MAR: the first genes, in blocks of random cells.

    A few cells lose many genes, more cells lose fewer, and many cells lose none. As cells are chosen
    without regard to anything observed, this is MCAR by blocks of columns, not MAR in Rubin's sense: see :func:`mar`.
    Genes beyond the widest block are never hidden, so results depend on the order of genes.

    Parameters
    ----------
    shape
        ``(n_obs, n_vars)``.
    share
        Share of hidden entries: 0.1 or 0.25, for which the paper has blocks.
    seed
        Seed of the choice of cells.

    Returns
    -------
    numpy.ndarray
        Boolean, of the given shape, True where hidden.

    Raises
    ------
    ValueError
        If there are no blocks for `share`.

    References
    ----------
    Soatto et al., CountsDiff, arXiv 2604.03779; the sizes are those of its published code, which loses a row between
    two blocks.
    """
    if share not in _BLOCKS:
        raise ValueError(f"share is {share}; the paper has blocks for {' and '.join(map(str, _BLOCKS))} only, see mar")
    n_obs, n_vars = shape
    cells, genes = _BLOCKS[share]
    place = (np.random.default_rng(seed).permutation(n_obs) + 0.5) / n_obs
    n_hidden = np.round(np.array([*genes, 0]) * n_vars)[np.searchsorted(np.cumsum(cells), place)]
    return np.arange(n_vars) < n_hidden[:, None]


def mnar(
    counts: Any,
    share: float,
    *,
    kind: Literal["high", "low"] = "high",
    slack: float = 0.1,
    seed: int = 0,
    among: Any = None,
) -> NDArray[np.bool_]:
    """Choose entries to hide among the highest or the lowest of each gene: not at random (MNAR).

    Of every gene the highest (lowest) `share` + `slack` of the entries are candidates; from these, `share` of all its
    entries are drawn. Ties are broken at random: where most counts of a gene are 0, its lowest entries are
    any of its zeros.

    Parameters
    ----------
    counts
        Shape ``(n_obs, n_vars)``, dense or sparse; only their order within a gene matters.
    share
        Share of each gene's entries to hide, in [0, 1]; fractions of an entry are rounded at random, right on average.
    kind
        ``"high"`` or ``"low"``.
    slack
        Share of each gene's entries that are candidates beyond those to hide, in [0, 1]: with 0 exactly the extreme
        entries are hidden, with 1 the choice is completely at random. (The paper adds 5,000 cells whatever the size of
        the data.)
    seed
        Seed of the choice.
    among
        Boolean matrix of the shape of `counts`, dense or sparse: the entries that may be hidden, of which `share` and
        `slack` are shares; ``None`` for all. The paper excludes zeros of genes that are expressed in the cell's type.

    Returns
    -------
    numpy.ndarray
        Boolean, shape ``(n_obs, n_vars)``, True where hidden.

    Raises
    ------
    ValueError
        If `share`, `kind` or `slack` is none of the above, `counts` is no matrix, `among` has another shape or is not
        boolean, or a count that may be hidden is NaN.
    """
    check_share(share)
    if kind not in ("high", "low"):
        raise ValueError(f"kind is {kind!r}; it must be 'high' or 'low'")
    if not 0 <= slack <= 1:
        raise ValueError(f"slack is {slack}; it is a share of a gene's entries and must lie in [0, 1]")
    check_is_matrix(counts=counts)
    counts = to_dense(counts)
    if counts.ndim != 2:
        raise ValueError(f"counts are a matrix, (n_obs, n_vars); got shape {counts.shape}")
    eligible = _eligible(among, counts.shape)
    if np.isnan(counts[eligible]).any():
        cell, gene = np.argwhere(np.isnan(counts) & eligible)[0]
        raise ValueError(f"the count of cell {cell} and gene {gene} is NaN; leave missing entries out of among")
    rng = np.random.default_rng(seed)
    hidden = np.zeros(counts.shape, dtype=bool)
    for gene in range(counts.shape[1]):
        cells = np.flatnonzero(eligible[:, gene])
        order = cells[np.lexsort((rng.random(cells.size), counts[cells, gene]))]
        whole, part = divmod(share * cells.size, 1)
        n_hidden = int(whole) + (rng.random() < part)
        candidates = (order[::-1] if kind == "high" else order)[: n_hidden + round(slack * cells.size)]
        hidden[rng.choice(candidates, n_hidden, replace=False), gene] = True
    return hidden


def check_share(share: float) -> None:
    """Check that a share of the entries, or of the molecules, is one."""
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it is a probability and must lie in [0, 1]")


def _eligible(among: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if among is None:
        return np.ones(shape, dtype=bool)
    among = to_dense(among)
    if among.shape != shape:
        raise ValueError(f"among has shape {among.shape}, but there are {shape} cells and genes; it needs every entry")
    if among.dtype != bool:
        raise ValueError(f"among must be boolean, True for entries that may be hidden; got dtype {among.dtype}")
    return among


def hide_entries(
    adata: AnnData,
    hidden: Any,
    *,
    layer: str | None = None,
    key_added: str = "hidden",
) -> AnnData:
    """Copy `adata` with some counts set to 0 and marked as hidden.

    The copy is ready for ``setup_anndata(..., missing_layer=key_added)``; the truth stays in `adata`.

    Parameters
    ----------
    adata
        Annotated counts, ``(n_obs, n_vars)``; not changed.
    hidden
        Boolean matrix of the same shape, dense or sparse, or a layer by its name: the entries to hide. A data frame
        goes by its names.
    layer
        Layer with the counts; None for ``X``. Other layers of the copy still hold what they held.
    key_added
        Layer of the copy that says which entries are hidden (boolean CSR).

    Raises
    ------
    ValueError
        If `hidden` has another shape than `adata`, or is not boolean, or the marks would take the place of the counts.
    KeyError
        If there is no such layer.

    Examples
    --------
    >>> hidden = countsdiff.pp.mcar(adata.shape, share=0.1, seed=0)
    >>> incomplete = countsdiff.pp.hide_entries(adata, hidden, layer="counts")
    >>> bool(incomplete.layers["hidden"].nnz == hidden.sum())
    True
    """
    check_key(key_added)
    check_not_read([key_added], [layer])
    hidden = to_dense(by_position(hidden, adata))
    if hidden.shape != adata.shape:
        raise ValueError(f"hidden has shape {hidden.shape}, but adata has shape {adata.shape}")
    if hidden.dtype != bool:
        raise ValueError(f"hidden must be boolean, True for entries to hide; got dtype {hidden.dtype}")
    result = adata.copy()
    counts = get_layer(result, layer)
    if sparse.issparse(counts):
        entries = counts.tocoo()
        known = ~hidden[entries.row, entries.col]
        positions = (entries.row[known], entries.col[known])
        counts = type(counts)((entries.data[known], positions), shape=counts.shape)
    else:
        counts = np.where(hidden, counts.dtype.type(0), counts)
    if layer is None:
        result.X = counts
    else:
        result.layers[layer] = counts
    result.layers[key_added] = sparse.csr_matrix(hidden)
    return result
