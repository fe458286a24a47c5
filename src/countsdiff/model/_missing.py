"""Which entries to impute, and what each of them is to the model."""

from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.model._data import CellReader, as_row_access, get_layer


@dataclass(frozen=True)
class Task:
    """What the model is to do with the entries of every cell.

    Attributes
    ----------
    hidden
        Matrix of entries to impute without looking at them (beyond those missing in the data), or ``None``.
    evidence
        Whether observed entries are evidence about themselves: they are then re-estimated rather than taken as known.
    rewrite
        Which entries get the model's answer: those missing, also the zeros, or all of them.
    """

    hidden: object | None
    evidence: bool
    rewrite: str  # "missing" | "zeros" | "all"

    def rewritten(self, counts: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Entries of a block of rows that get the model's answer."""
        if self.rewrite == "all":
            return np.ones_like(missing)
        return missing | (counts == 0) if self.rewrite == "zeros" else missing

    def provenance(self) -> dict:
        """Settings as plain values, for the record."""
        return {"rewrite": self.rewrite, "evidence": self.evidence}


DENOISE = Task(hidden=None, evidence=True, rewrite="all")


def resolve_missing(missing, adata: AnnData, reader: CellReader) -> Task:
    """Turn the `missing` argument of ``impute`` into a task.

    Parameters
    ----------
    missing
        ``None`` (entries missing in the data if there are any, else the zeros), ``"zeros"``, ``"all"``, the name of a
        layer, or a boolean array or sparse matrix of the shape of `adata`.
    adata
        Data to impute.
    reader
        Its counts.

    Raises
    ------
    ValueError
        If the matrix has another shape than `adata` or holds anything but true and false.
    KeyError
        If there is no layer of that name.
    """
    if missing is None:
        any_missing = any(reader(rows)[1].any() for rows in reader.chunks())
        return Task(None, evidence=False, rewrite="missing") if any_missing else resolve_missing("zeros", adata, reader)
    if isinstance(missing, str):
        if missing == "zeros":
            return Task(None, evidence=True, rewrite="zeros")
        if missing == "all":
            return DENOISE
        if missing not in adata.layers:
            raise KeyError(
                f"missing={missing!r} is neither 'zeros' nor 'all' nor a layer; adata.layers has {list(adata.layers)}."
            )
        hidden = as_row_access(get_layer(adata, missing))
    else:
        hidden = as_row_access(missing) if sparse.issparse(missing) else np.asarray(missing)
    if hidden.shape != adata.shape:
        raise ValueError(
            f"missing has shape {hidden.shape}, the data {adata.shape}: it needs one entry per cell and gene, in the "
            "same order."
        )
    _check_boolean(hidden)
    return Task(hidden, evidence=False, rewrite="missing")


def _check_boolean(matrix) -> None:
    values = matrix.data if sparse.issparse(matrix) else matrix
    if hasattr(values, "dtype") and values.dtype != bool and not np.isin(values, (0, 1)).all():
        odd = np.asarray(values)[~np.isin(values, (0, 1))].flat[0]
        raise ValueError(f"missing holds {odd!r}; it must be boolean: True where an entry is to be imputed.")
