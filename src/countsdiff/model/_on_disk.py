"""Matrices that stay on disk until their rows are asked for."""

import h5py
import numpy as np
import zarr
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.store import check_sparse


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
    parts = [matrix[int(run[0]) : int(run[-1]) + 1] for run in runs if len(run)]
    if not parts:
        return matrix[0:0]
    if not sparse.issparse(parts[0]):
        return np.concatenate(parts)
    for part in parts:
        check_sparse(part)
    return sparse.vstack(parts, format="csr")
