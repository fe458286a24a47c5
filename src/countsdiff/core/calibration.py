"""Level and width of predictive laws, set right once training has ended.

On cells that were trained on: most of the entries that users impute lie in such cells. Levels and tails fitted to
cells held out missed theirs (on a fetal atlas the level by 6 %), those fitted to observed entries of the same cells
were right within 1.5 %.
"""

import torch
from torch import Tensor


def fit_level(counts: Tensor, mean: Tensor) -> float:
    """Factor that makes predictions add up to the counts they are for.

    Training balances the two, but with dropout on; without it predictions came out 1 to 3 % too high.

    Parameters
    ----------
    counts
        Counts that were hidden and predicted, shape ``(n,)``.
    mean
        Their predicted means, same shape.

    Returns
    -------
    float
        Σ counts / Σ means; 1 where there is no count to go by.
    """
    total = float(counts.to(torch.float64).sum())
    return total / float(mean.to(torch.float64).sum()) if total > 0.0 else 1.0


def fit_tail(counts: Tensor, mean: Tensor, shape: Tensor) -> float:
    """Find the mean beyond which predictive laws have to become narrower, to have the variance of the residuals.

    A likelihood fits dispersion where most entries are, at means below one. The few entries with large means can then
    get laws far too wide. Here shapes become shape · (1 + mean / tail): untouched at small means, and with a variance
    that grows in proportion to large ones.

    Parameters
    ----------
    counts
        Counts that were hidden and predicted, shape ``(n,)``.
    mean, shape
        Their predicted negative-binomial laws, same shape.

    Returns
    -------
    float
        The tail, so that Σ mean + mean² / (shape (1 + mean / tail)) equals the sum of squared residuals; infinite if
        the laws are not too wide.
    """
    counts, mean, shape = (v.to(torch.float64) for v in (counts, mean, shape))
    target = ((counts - mean).square() - mean).sum()
    excess = mean.square() / shape
    if excess.sum() <= target:
        return float("inf")
    low, high = -10.0, 25.0  # natural logarithms of a tail
    for _ in range(60):
        middle = 0.5 * (low + high)
        if (excess / (1.0 + mean / torch.tensor(middle).exp())).sum() > target:
            high = middle
        else:
            low = middle
    return float(torch.tensor(0.5 * (low + high)).exp())
