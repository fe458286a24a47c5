"""Whether correlations between genes are kept, and none invented."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._samples import check_samples, moments

_FLAT = 1e-5  # standard deviation over mean: less is the rounding of single precision, whose correlations mean nothing


def correlation_error(truth: Any, imputed: Any) -> float:
    """Root mean square difference of Pearson's correlations over all pairs of different genes.

    Parameters
    ----------
    truth, imputed
        Matrices of shapes ``(n_obs, n_vars)`` and ``(n_obs_imputed, n_vars)``, dense or scipy sparse, on whatever
        scale correlations are wanted.

    Returns
    -------
    float
        In [0, 2]. A gene that is constant in either matrix, to single precision, has no correlations and is left out
        of both; NaN where fewer than two genes are left.

    Raises
    ------
    ValueError
        If the columns differ, or a matrix has fewer than two rows or a value that is not finite.
    """
    found = [moments(matrix) for matrix in check_samples(truth=truth, imputed=imputed)]
    varying = np.all([_vary(*each) for each in found], axis=0)
    r, s = (_correlations(covariance, varying) for _, covariance in found)
    return float(np.sqrt(np.mean((s - r) ** 2))) if r.size else float("nan")


def mean_absolute_correlation(matrix: Any) -> float:
    """Mean absolute Pearson correlation over all pairs of different genes.

    If every gene was permuted over the cells on its own, an imputer has nothing to learn: whatever correlation its
    output shows beyond ``sqrt(2 / (π (n_obs - 1)))``, the mean for independent genes, is invented.

    Parameters
    ----------
    matrix
        Shape ``(n_obs, n_vars)``, dense or scipy sparse.

    Returns
    -------
    float
        In [0, 1]. Genes that are constant, to single precision, are left out; NaN where fewer than two genes are left.

    Raises
    ------
    ValueError
        If the matrix has fewer than two rows or a value that is not finite.

    References
    ----------
    Andrews & Hemberg (2018), False signals induced by single-cell imputation, F1000Research 7, 1740.
    """
    mean, covariance = moments(*check_samples(matrix=matrix))
    r = _correlations(covariance, _vary(mean, covariance))
    return float(np.abs(r).mean()) if r.size else float("nan")


def _vary(mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Genes that are not constant, but for rounding."""
    varying: NDArray[np.bool_] = np.sqrt(covariance.diagonal()) > _FLAT * np.abs(mean)
    return varying


def _correlations(covariance: NDArray[np.float64], genes: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Correlations of the chosen genes without those of a gene with itself, shape ``(n_genes (n_genes - 1),)``."""
    chosen = covariance[np.ix_(genes, genes)]
    scale = np.sqrt(chosen.diagonal())
    correlations: NDArray[np.float64] = (chosen / np.outer(scale, scale))[~np.eye(len(scale), dtype=bool)]
    return correlations
