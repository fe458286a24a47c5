"""Samples of cells: checking them, and their first two moments."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.matrix import check_is_matrix, to_dense

_ROWS = 1024  # cells made dense at a time


def check_samples(**samples: Any) -> list[Any]:
    """Return the named matrices as float64, dense or CSR, or say which one does not fit.

    Raises
    ------
    ValueError
        If one is not a matrix, is empty or of a single row, has another number of columns than the first one, or
        holds a value that is not finite.
    """
    check_is_matrix(**samples)
    matrices: dict[str, Any] = {
        name: sparse.csr_matrix(m, dtype=np.float64) if sparse.issparse(m) else np.asarray(m, dtype=np.float64)
        for name, m in samples.items()
    }
    shapes = {name: m.shape for name, m in matrices.items()}
    if any(len(shape) != 2 or 0 in shape for shape in shapes.values()) or len({s[1] for s in shapes.values()}) > 1:
        raise ValueError(f"need matrices of shape (n_obs, n_vars), not empty, with the same columns; got {shapes}")
    for name, matrix in matrices.items():
        if matrix.shape[0] < 2:
            raise ValueError(f"{name} has a single row; one cell says nothing about a distribution, pass at least two")
        values = matrix.data if sparse.issparse(matrix) else matrix
        if not np.isfinite(values).all():
            wrong = values[~np.isfinite(values)][0]
            raise ValueError(f"{name} holds {wrong}; leave such cells or genes out, or fill the entries first")
    return list(matrices.values())


def moments(sample: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and unbiased covariance of the columns, a block of rows at a time.

    Parameters
    ----------
    sample
        Matrix that :func:`check_samples` passed, shape ``(n_obs, n_vars)``.

    Returns
    -------
    mean, covariance
        Shapes ``(n_vars,)`` and ``(n_vars, n_vars)``; the variance of a constant column is exactly 0.
    """
    n_obs, n_vars = sample.shape
    first = to_dense(
        sample[:1]
    )  # as the origin it makes constant columns exact zeros, which their rounded mean would not

    def blocks() -> Iterator[NDArray[np.float64]]:
        for start in range(0, n_obs, _ROWS):
            yield to_dense(sample[start : start + _ROWS]) - first

    mean = sum((block.sum(axis=0) for block in blocks()), np.zeros(n_vars)) / n_obs
    squares = np.zeros((n_vars, n_vars))
    for block in blocks():
        block -= mean
        squares += block.T @ block
    return first[0] + mean, squares / (n_obs - 1)
