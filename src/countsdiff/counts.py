"""Counts as AnnData holds them, in memory or on disk: full validation, gene order, and reading in dense rows."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.layers import by_name, get_layer
from countsdiff.matrix import check_not_lazy, check_sparse, to_dense

SPARSE_BELOW = 1 / 3  # a CSR matrix of float32 is smaller than a dense one up to half of the entries
_LARGEST = 2**24  # beyond it float32 skips whole numbers
_CHUNK = 2048  # rows densified at a time, or fewer:
_CHUNK_ENTRIES = 2**25  # peaks are many
_RUN = 16  # neighbouring rows cost no more to read from a file than one of them


@dataclass(frozen=True)
class CellReader:
    """Reads counts row by row, whatever holds them, as float32 with the missing entries marked.

    Parameters
    ----------
    counts
        Dense, CSR, CSC, sparse array, or backed; NaN marks a missing entry.
    missing
        Boolean-like matrix of the same shape, or ``None``.
    columns
        Order in which to return the variables, or ``None`` for the order they have.
    """

    counts: Any
    missing: Any | None = None
    columns: NDArray[np.intp] | None = None

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return int(self.counts.shape[0])

    def __call__(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return counts (0 where missing) and missing entries of `rows`, both ``(len(rows), n_vars)``."""
        counts = dense_rows(self.counts, rows, self.columns).astype(np.float32)
        missing = np.isnan(counts)
        if self.missing is not None:
            missing |= dense_rows(self.missing, rows, self.columns).astype(bool)
        counts[missing] = 0.0
        return counts, missing

    def spread(self, n: int) -> NDArray[np.intp]:
        """About `n` rows from all over the data, in evenly spaced runs of neighbours."""
        if n >= self.n_obs:
            return np.arange(self.n_obs)
        starts = np.linspace(0, self.n_obs - _RUN, math.ceil(n / _RUN)).astype(np.intp)
        return np.unique(starts[:, None] + np.arange(_RUN))

    def any_missing(self) -> bool:
        """Whether any entry is missing."""
        blocks = [slice(rows[0], rows[-1] + 1) for rows in self.chunks()]
        if self.missing is not None and any(stored_values(self.missing[block]).any() for block in blocks):
            return True
        return any(np.isnan(stored_values(self.counts[block])).any() for block in blocks)

    def restore(self, matrix: NDArray) -> NDArray:
        """Put columns in the model's order back into the order the data have."""
        return matrix if self.columns is None else matrix[:, np.argsort(self.columns)]

    def chunks(self, rows: NDArray[np.intp] | None = None, size: int | None = None) -> Iterator[NDArray[np.intp]]:
        """Split `rows` (default: all) into runs of at most `size`."""
        size = size or max(1, min(_CHUNK, _CHUNK_ENTRIES // self.counts.shape[1]))
        rows = np.arange(self.n_obs) if rows is None else rows
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def is_on_disk(matrix) -> bool:
    """Whether a matrix is read from a file when it is indexed."""
    return isinstance(matrix, CSRDataset | CSCDataset | h5py.Dataset | zarr.Array)


def read_rows(matrix, rows: NDArray[np.intp]):
    """Read rows of a matrix; of one on disk in increasing order, those that follow each other in one piece.

    Raises
    ------
    ValueError
        If what is read is no sparse matrix.
    """
    if not is_on_disk(matrix):
        return matrix[rows]
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    parts = [_consecutive_rows(matrix, int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]
    if not parts:
        return matrix[0:0]
    if not sparse.issparse(parts[0]):
        return np.concatenate(parts)
    for part in parts:
        check_sparse(part)
    return sparse.vstack(parts, format="csr")


def _consecutive_rows(matrix, start: int, stop: int):
    """Consecutive rows of a matrix, in memory or on disk."""
    if not isinstance(matrix, CSRDataset):
        return matrix[start:stop]
    # by hand: anndata looks up the version of scipy whenever it is asked for rows, which takes longer than to read them
    group = matrix.group
    pointers = group["indptr"][start : stop + 1]
    stored = slice(int(pointers[0]), int(pointers[-1]))
    parts = group["data"][stored], group["indices"][stored], pointers - pointers[0]
    return sparse.csr_matrix(parts, shape=(stop - start, matrix.shape[1]))


def dense_rows(matrix, rows: NDArray[np.intp], columns: NDArray[np.intp] | None = None) -> np.ndarray:
    """Rows of any matrix, in any order, with their columns in the order given."""
    if is_on_disk(matrix):
        distinct, back = np.unique(rows, return_inverse=True)
        block = read_rows(matrix, distinct)
        block = block if len(distinct) == len(rows) and (np.diff(back) > 0).all() else block[back]
    else:
        block = matrix[rows]
    block = to_dense(block)
    return block if columns is None else block[:, columns]


def stored_values(block) -> np.ndarray:
    """Stored values of a block of rows."""
    return block.data if sparse.issparse(block) else np.asarray(block)


def by_position(matrix: Any, adata: AnnData) -> Any:
    """A layer by its name, or a matrix, whose rows can be read; of a data frame those of the cells and genes.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If a data frame lacks a cell or a gene.
    """
    if isinstance(matrix, str):
        return as_row_access(get_layer(adata, matrix))
    if isinstance(matrix, pd.DataFrame):
        for own, names, what in ((matrix.index, adata.obs_names, "cell"), (matrix.columns, adata.var_names, "gene")):
            absent = names.difference(own)
            if len(absent):
                raise ValueError(f"The data frame lacks the {what} {absent[0]!r}.")
        if not (matrix.index.equals(adata.obs_names) and matrix.columns.equals(adata.var_names)):
            check_unique(matrix.index, "cell")
            check_unique(matrix.columns, "gene")
            matrix = matrix.loc[adata.obs_names, adata.var_names]
    return as_row_access(matrix) if sparse.issparse(matrix) or is_on_disk(matrix) else np.asarray(matrix)


def as_row_access(matrix):
    """Sparse matrices in other formats become CSR, in memory: their rows cannot be read one by one.

    Raises
    ------
    ValueError
        If a matrix by columns does not say where its entries are.
    """
    matrix = matrix.to_memory() if isinstance(matrix, CSCDataset) else matrix
    if not sparse.issparse(matrix) or matrix.format == "csr":
        return matrix
    if matrix.format == "csc":
        check_sparse(matrix)  # one that lies would crash its conversion
    return matrix.tocsr()


def check_counts(adata: AnnData, layer: str | None, name: str = "adata") -> None:
    """Check every entry of a count layer: whole numbers, finite, not negative; NaN passes as missing.

    Raises
    ------
    ValueError
        Naming the layer, cell, gene and value of the first offending entry, and what to do.
    """
    layer = by_name(adata, layer)
    matrix = get_layer(adata, layer)
    where = f"{name}.X" if layer is None else f"{name}.layers[{layer!r}]"
    if isinstance(matrix, np.ma.MaskedArray):
        raise ValueError(f"{where} is a masked array; mark missing entries by NaN instead: .filled(numpy.nan).")
    if 0 in matrix.shape:
        raise ValueError(f"{where} is empty: {matrix.shape[0]} cells × {matrix.shape[1]} genes.")
    check_unique(adata.var_names, "gene")
    check_not_lazy(matrix, where)
    with _damage_of(where):
        matrix = as_row_access(matrix)
    for at in CellReader(matrix).chunks():
        start = at[0]
        block = _consecutive_rows(matrix, start, at[-1] + 1)
        if sparse.issparse(block):
            with _damage_of(where):
                check_sparse(block)
            entries = block.tocoo()
            rows, columns, values = entries.row, entries.col, entries.data
        else:
            block = np.asarray(block)
            rows, columns = np.nonzero(block)
            values = block[rows, columns]
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{where} holds {values.dtype}, not real numbers.")
        if values.dtype == np.float16:
            values = values.astype(np.float32)  # in which the largest count allowed is not infinite
        with np.errstate(invalid="ignore"):
            bad = (values < 0) | (values > _LARGEST) | ((values != np.floor(values)) & ~np.isnan(values))
        if not bad.any():
            continue
        first = np.flatnonzero(bad)[0]
        value = values[first]
        cell, gene = adata.obs_names[start + rows[first]], adata.var_names[columns[first]]
        if _LARGEST < value < np.inf and value == np.floor(value):
            raise ValueError(
                f"{where}: cell {cell!r}, gene {gene!r} holds {value:,}; above {_LARGEST:,} counts lose digits."
            )
        problem = (
            f"{where} is not a matrix of counts: cell {cell!r}, gene {gene!r} holds {value:g}, which is "
            f"{'negative' if value < 0 else 'infinite' if np.isinf(value) else 'not a whole number'}."
        )
        if np.isfinite(value) and np.mean(bad) > 0.5:
            problem += " Most values are like that: the matrix looks normalised, log-transformed or scaled."
        raise ValueError(f"{problem} Give the raw counts, for example layer='counts' or adata.raw.to_adata().")


@contextmanager
def _damage_of(name: str) -> Iterator[None]:
    """Say which matrix it is that does not hold together."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}; write the data again.") from error


def check_boolean(matrix, name: str = "missing") -> None:
    """Check that a matrix of missing entries holds nothing but true and false.

    Raises
    ------
    ValueError
        If it does not; the message has the first other value.
    """
    if sparse.issparse(matrix):
        check_sparse(matrix)
    if matrix.dtype == bool:
        return
    for rows in CellReader(matrix).chunks():
        values = stored_values(read_rows(matrix, rows))
        strange = ~np.isin(values, (0, 1))
        if strange.any():
            raise ValueError(
                f"{name} holds {values[strange].flat[0]!s}; it must be boolean: True where an entry is missing."
            )


def check_unique(names: pd.Index, what: str) -> None:
    """Check that the names of cells or genes (`what`) are unique.

    Raises
    ------
    ValueError
        Naming the first name that repeats.
    """
    if not names.is_unique:
        twice = names[names.duplicated()][0]
        raise ValueError(
            f"The {what} name {twice!r} stands more than once; call adata.{'var' if what == 'gene' else 'obs'}"
            "_names_make_unique() first."
        )


_REMEDY = "Take the model to these data with load_query_data: absent genes are then missing entries."


def align_genes(var_names: pd.Index, model_names: np.ndarray) -> NDArray[np.intp] | None:
    """Positions of the model's genes in `var_names`; ``None`` where they are in order already.

    Raises
    ------
    ValueError
        If the genes are not the model's, with a guess at why, or the remedy where some are absent.
    """
    if len(var_names) == len(model_names) and (np.asarray(var_names) == model_names).all():
        return None
    check_unique(var_names, "gene")
    positions = var_names.get_indexer(model_names)
    absent = np.asarray(model_names)[positions < 0]
    if len(absent):
        none = len(absent) == len(model_names)
        hint = "Are cells and genes swapped (transpose with adata.T)?" if none else _REMEDY
        raise ValueError(
            f"The data lack {len(absent)} of the {len(model_names)} genes the model was trained on, for example "
            f"{str(absent[0])!r}. {hint}"
        )
    if len(var_names) != len(model_names):
        raise ValueError(
            f"The data have {len(var_names)} genes, the model {len(model_names)}. "
            "Subset first: adata[:, model.get_var_names()].copy()."
        )
    return positions
