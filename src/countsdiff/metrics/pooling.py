"""Several imputations, one answer: Rubin's rules."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class PooledEstimate:
    """Estimates from several imputations, pooled; every array has the shape of one estimate.

    Attributes
    ----------
    estimate
        Mean over the imputations.
    variance
        Within plus between imputations, W + (1 + 1/m) B.
    df
        Degrees of freedom of the t distribution of the estimate (Barnard & Rubin 1999).
    missing_information
        Share of the variance that is due to what is missing, (1 + 1/m) B over the whole.
    """

    estimate: NDArray[np.float64]
    variance: NDArray[np.float64]
    df: NDArray[np.float64]
    missing_information: NDArray[np.float64]

    @property
    def statistic(self) -> NDArray[np.float64]:
        """Estimate over its standard error; 0 where both are 0, infinite where the error alone is."""
        error = np.sqrt(self.variance)
        certain = np.where(self.estimate == 0, 0.0, np.copysign(np.inf, self.estimate))
        return np.divide(self.estimate, error, out=certain, where=error != 0)

    @property
    def p_value(self) -> NDArray[np.float64]:
        """Two-sided p-value of the estimate being 0; 1 or 0 where there is no variance."""
        p: NDArray[np.float64] = 2.0 * stats.t.sf(np.abs(self.statistic), np.maximum(self.df, 1e-9))
        return p


def pool_imputations(estimates: ArrayLike, variances: ArrayLike, df: ArrayLike) -> PooledEstimate:
    """Pool one analysis of several imputations by Rubin's rules.

    Analysing a single imputation treats it as measured data; the variance between imputations adds what is not known.

    Parameters
    ----------
    estimates
        What every imputation gave, shape ``(m, …)``, m at least 2.
    variances
        Squared standard errors of the estimates, same shape.
    df
        Degrees of freedom of the analysis if nothing were missing, positive, broadcast against one estimate.

    Returns
    -------
    PooledEstimate

    Raises
    ------
    ValueError
        If there are fewer than two imputations, the shapes differ, a variance is negative, or `df` is not positive.

    References
    ----------
    Rubin (1987), Multiple Imputation for Nonresponse in Surveys, section 3.1.
    Barnard & Rubin (1999), Small-sample degrees of freedom with multiple imputation, Biometrika 86, 948-955.
    """
    q, u = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if q.shape != u.shape or q.ndim == 0 or len(q) < 2:
        raise ValueError(f"need estimates and variances of two or more imputations; got shapes {q.shape} and {u.shape}")
    if (u < 0).any():
        raise ValueError(f"a variance is {u.min():g}; it must not be negative")
    m = len(q)
    complete = np.asarray(df, dtype=np.float64)
    try:
        complete = np.broadcast_to(complete, q.shape[1:])
    except ValueError as error:
        raise ValueError(
            f"df has shape {complete.shape}, an estimate {q.shape[1:]}; give one number for all"
        ) from error
    if (complete <= 0).any():
        raise ValueError(f"df is {complete.min():g}; degrees of freedom are positive")
    within, between = u.mean(0), (1.0 + 1.0 / m) * q.var(0, ddof=1)
    total = within + between
    share = np.divide(between, total, out=np.zeros_like(total), where=total != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df_imputation = (m - 1) / np.square(share)
        # as complete data have it, less what is missing; of any number of cells (∞) as far as anything was observed
        df_observed = np.where(share >= 1.0, 0.0, (1.0 - 2.0 / (complete + 3.0)) * complete * (1.0 - share))
        pooled = 1.0 / (1.0 / df_imputation + 1.0 / df_observed)
    return PooledEstimate(q.mean(0), total, pooled, share)
