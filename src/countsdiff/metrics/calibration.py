"""Whether samples and intervals are spread as the truth is."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .point import check_entries


def zero_fraction_error(truth: ArrayLike, sample: ArrayLike) -> float:
    """Share of zeros in the sample minus share of zeros in the truth.

    Parameters
    ----------
    truth, sample
        Counts and sampled counts of the scored entries, both of shape ``(n_entries,)``.
    """
    x, y = (np.where(np.isnan(v), np.nan, v == 0) for v in check_entries(truth=truth, sample=sample))
    return float(np.mean(y) - np.mean(x))


def variance_ratio(truth: ArrayLike, sample: ArrayLike) -> float:
    """Variance of the sample over that of the truth: below 1 under-dispersed; NaN for a constant truth.

    Parameters
    ----------
    truth, sample
        Counts and sampled counts of the scored entries, both of shape ``(n_entries,)``.
    """
    x, y = check_entries(truth=truth, sample=sample)
    return float(y.var() / x.var()) if np.ptp(x) > 0 else float("nan")


def interval_coverage(truth: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Share of the true counts within the closed intervals ``[lower, upper]``.

    An interval of counts cannot cover exactly 90 %: where most counts are zero, coverage far above the
    nominal one is no sign of intervals that are too wide. Judge it on entries with a large predicted mean, or
    use :func:`pit_ks`.

    Parameters
    ----------
    truth, lower, upper
        Counts and interval ends of the scored entries, all of shape ``(n_entries,)``.

    Raises
    ------
    ValueError
        If shapes differ, the arrays are empty, or an interval ends before it begins.
    """
    x, low, high = check_entries(truth=truth, lower=lower, upper=upper)
    reversed_ = np.flatnonzero(~(low <= high))
    if reversed_.size:
        i = reversed_[0]
        raise ValueError(f"entry {i} has the interval [{low[i]:g}, {high[i]:g}]; lower must not exceed upper")
    inside = np.where(np.isnan(x), np.nan, (low <= x) & (x <= high))
    return float(np.mean(inside))


def randomised_pit(cdf_below: ArrayLike, cdf_at: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """Randomised probability integral transform (PIT) of every count: uniform on [0, 1] iff predictions are calibrated.

    With F the predictive distribution of a count x, ``u = F(x - 1) + v (F(x) - F(x - 1))`` and v uniform
    (Brockwell 2007; Czado, Gneiting & Held 2009), whatever the share of zeros.

    Parameters
    ----------
    cdf_below, cdf_at
        F(x - 1) and F(x) of the scored entries, both of shape ``(n_entries,)``.
    seed
        Seed of v.

    Returns
    -------
    numpy.ndarray
        u, shape ``(n_entries,)``.

    Raises
    ------
    ValueError
        If shapes differ, the arrays are empty, or ``0 <= cdf_below <= cdf_at <= 1`` does not hold.
    """
    below, at = check_entries(cdf_below=cdf_below, cdf_at=cdf_at)
    wrong = np.flatnonzero(~((below >= 0) & (below <= at) & (at <= 1)))
    if wrong.size:
        i = wrong[0]
        raise ValueError(f"entry {i} has F(x-1) = {below[i]:g} and F(x) = {at[i]:g}; need 0 <= F(x-1) <= F(x) <= 1")
    u: NDArray[np.float64] = below + np.random.default_rng(seed).random(len(at)) * (at - below)
    return u


def pit_ks(cdf_below: ArrayLike, cdf_at: ArrayLike, seed: int = 0) -> float:
    """Kolmogorov-Smirnov distance of :func:`randomised_pit` from the uniform distribution.

    Parameters
    ----------
    cdf_below, cdf_at, seed
        As for :func:`randomised_pit`.

    Returns
    -------
    float
        Largest distance between the two distribution functions, in [0, 1]; about ``0.87 / sqrt(n_entries)``
        on average if the prediction is calibrated.
    """
    u = np.sort(randomised_pit(cdf_below, cdf_at, seed))
    steps = np.arange(len(u) + 1) / len(u)
    return float(max(np.max(steps[1:] - u), np.max(u - steps[:-1])))
