from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse


def mcar(shape: tuple[int, int], share: float, *, seed: int = 0) -> NDArray[np.bool_]:
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

    Returns
    -------
    numpy.ndarray
        Boolean, of the given shape, True where hidden.

    Raises
    ------
    ValueError
        If `share` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it is a probability and must lie in [0, 1]")
    return np.random.default_rng(seed).random(shape) <= share


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
        Boolean matrix of the same shape, dense or sparse: the entries to hide.
    layer
        Layer with the counts; None for ``X``. Other layers of the copy still hold what they held.
    key_added
        Layer of the copy that says which entries are hidden (boolean CSR).

    Raises
    ------
    ValueError
        If `hidden` has another shape than `adata`, or is not boolean.
    KeyError
        If there is no such layer.
    """
    if hidden.shape != adata.shape:
        raise ValueError(f"hidden has shape {hidden.shape}, but adata has shape {adata.shape}")
    if hidden.dtype != bool:
        raise ValueError(f"hidden must be boolean, True for entries to hide; got dtype {hidden.dtype}")
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"there is no layer {layer!r}; the layers are {sorted(adata.layers)}")
    hidden = hidden.toarray() if sparse.issparse(hidden) else np.asarray(hidden)
    result = adata.copy()
    counts = result.X if layer is None else result.layers[layer]
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
