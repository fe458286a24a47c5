"""Scores of denoised cells against molecules that were held out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.matrix import check_is_matrix, to_dense

_ROWS = 1024  # cells made dense at a time


def open_problems_mse(test_counts: Any, denoised: Any, target_sum: float = 1e4) -> float:
    """Mean squared error of Open Problems' denoising task, on ``log1p`` of normalised cells.

    Over all entries. Invariant to the depth of each cell, so `denoised` may be at any depth. It is minimised by the
    mean of the logarithm of the counts, not by their mean.

    Parameters
    ----------
    test_counts, denoised
        Held-out counts and denoised expression, shape ``(n_obs, n_vars)``, dense or scipy sparse.
    target_sum
        Sum to which every cell is scaled; a cell without counts stays at zero.

    Raises
    ------
    ValueError
        If the shapes differ, there are no entries, or a value is negative.

    References
    ----------
    Batson, Royer & Webber (2019), Molecular cross-validation for single-cell RNA-seq, bioRxiv 786269.
    Open Problems in Single-Cell Analysis, task ``denoising``, metric ``mse``.
    """
    check_is_matrix(test_counts=test_counts, denoised=denoised)
    test, denoised = (m.tocsr() if sparse.issparse(m) else to_dense(m) for m in (test_counts, denoised))
    if test.shape != denoised.shape or test.ndim != 2:
        raise ValueError(f"need two matrices of one shape (n_obs, n_vars); got {test.shape} and {denoised.shape}")
    n_entries = test.shape[0] * test.shape[1]
    if n_entries == 0:
        raise ValueError(f"there is nothing to score: the matrices have shape {test.shape}")
    squares = 0.0
    for start in range(0, test.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        squares += np.sum((log_normalise(test[rows], target_sum) - log_normalise(denoised[rows], target_sum)) ** 2)
    return float(squares / n_entries)


def open_problems_poisson(test_counts: Any, denoised: Any) -> float:
    """Return the "Poisson loss" of Open Problems' denoising task, for comparison with its tables only.

    Their implementation hands the Poisson negative log-likelihood its arguments in the wrong order: it is the mean of
    ``x − y log(x + 1e-6)`` for held-out counts x and prediction y. Every molecule predicted where none was held out
    costs 13.8, so predictions near zero score best. :func:`~countsdiff.metrics.poisson_loss` is the loss meant.

    Parameters
    ----------
    test_counts, denoised
        Held-out counts and prediction at their depth, shape ``(n_obs, n_vars)``, dense or scipy sparse.

    Raises
    ------
    ValueError
        If the shapes differ or there are no entries.
    """
    check_is_matrix(test_counts=test_counts, denoised=denoised)
    x, y = to_dense(test_counts, np.float64), to_dense(denoised, np.float64)
    if x.shape != y.shape or x.size == 0:
        raise ValueError(f"need two matrices of one shape with entries to score; got {x.shape} and {y.shape}")
    return float(np.mean(x - y * np.log(x + 1e-6)))


def log_normalise(matrix: Any, target_sum: float = 1e4) -> NDArray[np.float64]:
    """Scale every cell to `target_sum` and take ``log1p``; a cell without counts stays at 0.

    Parameters
    ----------
    matrix
        Counts or expression, shape ``(n_obs, n_vars)``, dense or scipy sparse; the result is dense.
    target_sum
        Sum of a cell before the logarithm, positive.

    Raises
    ------
    ValueError
        If `target_sum` is not positive, or a value is negative.
    """
    if not target_sum > 0.0:
        raise ValueError(f"target_sum is {target_sum}; it must be positive")
    x = to_dense(matrix, np.float64)
    if x.size and x.min() < 0:
        raise ValueError(f"the matrix holds {x.min():g}; expression must not be negative, clip it at 0")
    total = x.sum(axis=1, keepdims=True)
    return np.log1p(x * (target_sum / np.where(total > 0, total, 1)))
