"""What every function that takes a matrix asks of it first, and that it may be sparse."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import sparse


def to_dense(matrix: Any, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return a matrix, sparse or not, as an array; the same one where it is an array of that type already.

    Raises
    ------
    TypeError
        If it is a masked array, whose marks would be lost.
    """
    if isinstance(matrix, np.ma.MaskedArray):
        raise TypeError("a numpy masked array is not taken, as its marks would be lost; give .filled(numpy.nan)")
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=dtype)


def check_is_matrix(**values: Any) -> None:
    """Check that no whole table was given where a matrix is wanted: numpy would go through it cell by cell, and fail.

    Raises
    ------
    TypeError
        Naming the argument, and what to give instead.
    """
    for name, value in values.items():
        if hasattr(value, "obs_names"):
            kind = type(value).__name__
            raise TypeError(f"{name} is an {kind}; give one of its matrices, such as .X or .layers['counts'].")


def check_sparse(matrix: Any) -> None:
    """Check that a sparse matrix in memory says where its entries are: one that lies would crash the process.

    Raises
    ------
    ValueError
        If indices or pointers are out of range or order.
    """
    pointers = matrix.indptr.astype(np.int64)  # differences of short integers wrap around
    if pointers[-1] != len(matrix.indices) or (np.diff(pointers) < 0).any():
        raise ValueError("index pointers of a sparse matrix are out of order")
    matrix.check_format(full_check=True)


def check_not_lazy(matrix: Any, where: str) -> None:
    """Check that a matrix, which stands at `where`, is no dask array of sparse blocks; dense ones are read as they are.

    Raises
    ------
    ValueError
        If it is one: its rows are neither numpy's nor scipy's.
    """
    if hasattr(matrix, "compute") and sparse.issparse(getattr(matrix, "_meta", None)):
        raise ValueError(
            f"{where} is a dask array of sparse blocks: read it first, adata = adata.to_memory(), or take counts from "
            "disk by countsdiff.store.open_store."
        )
