"""Data sets as the tasks see them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .interfaces import Counts

if TYPE_CHECKING:
    from anndata import AnnData

_MIN_CELLS = 10


@dataclass(frozen=True)
class Dataset:
    """Complete counts, and what is known of cells and genes.

    Parameters
    ----------
    name
        Name in the table of results.
    counts
        Shape ``(n_obs, n_vars)``.
    genes
        Names, shape ``(n_vars,)``.
    labels
        One label per cell, shape ``(n_obs,)``, or None.
    left_out
        Counts of every cell over the genes that were not chosen, shape ``(n_obs,)``: nothing hides them.
    """

    name: str
    counts: Counts
    genes: NDArray[np.str_]
    labels: NDArray[np.str_] | None
    left_out: NDArray[np.float64]

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that differ for any other counts, genes or labels."""
        digest = hashlib.sha256(self.counts.tobytes())
        digest.update("\0".join(self.genes).encode())
        digest.update("\0".join(() if self.labels is None else self.labels).encode())
        return digest.hexdigest()[:12]


def prepare(
    adata: "AnnData", name: str, *, layer: str | None = None, n_genes: int = 1000, labels_key: str | None = None
) -> Dataset:
    """Take counts and labels out of an AnnData: genes seen in ten cells, and of these the most variable.

    Parameters
    ----------
    adata
        Raw counts.
    name
        Name in the table of results.
    layer
        Layer with the counts. Default: ``"counts"`` or, without one, ``X``.
    n_genes
        Number of genes, as :func:`countsdiff.pp.highly_variable` chooses them.
    labels_key
        Column of ``obs`` with the labels that some methods are given.

    Raises
    ------
    ValueError
        If the counts are no counts, one is missing, or no gene is seen in ten cells.
    KeyError
        If there is no such layer or column.
    """
    from anndata import AnnData

    from countsdiff import pp
    from countsdiff.counts import check_counts
    from countsdiff.layers import default_layer, get_layer, require_columns

    layer = layer or default_layer(adata)
    require_columns(adata, [labels_key])
    check_counts(adata, layer)
    counts = sparse.csr_matrix(get_layer(adata, layer), dtype=np.float32)
    if np.isnan(counts.data).any():
        raise ValueError("a count is NaN; the benchmark hides counts itself, and needs complete ones to compare with.")
    seen = np.flatnonzero(np.asarray((counts > 0).sum(axis=0)).ravel() >= _MIN_CELLS)
    if not seen.size:
        raise ValueError(f"no gene is seen in {_MIN_CELLS} of the {adata.n_obs} cells; benchmark a larger data set.")
    chosen = seen[pp.highly_variable(AnnData(counts[:, seen]), n_genes)]
    dense = counts[:, chosen].toarray()
    return Dataset(
        name,
        dense,
        np.asarray(adata.var_names[chosen], dtype=str),
        None if labels_key is None else adata.obs[labels_key].astype(str).to_numpy(dtype=str),
        np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel() - dense.sum(axis=1, dtype=np.float64),
    )
