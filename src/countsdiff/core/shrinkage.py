"""Means of variables by empirical Bayes: what is seen least is shrunken most, towards what variables have in common."""

import math

import torch
from torch import Tensor

_INDICES = (1.0, 2.0, 4.0, 8.0, 16.0)  # of dispersion, which are tried
_MOST_TRIED = 20_000  # variables: more tell little new of one number
_FEW = 100  # counts, up to which means depend on the index
_ROUNDS = 100  # of the prior and posteriors in turn, at most
_N_POINTS, _REACH = 64, 6.0  # of the grid of a variable: as many, and standard deviations away from its own mean
_SETTLED = 1e-3  # a prior that moves by less has come to rest
_LEAST_SPREAD = 0.3  # of logarithms of means, below which grids are too coarse


def posterior_means(total: Tensor, exposure: Tensor, index: float = 1.0) -> Tensor:
    """Expected mean of every variable given what was counted of all, under a log-normal law fitted to them.

    Of variables that were chosen for something (detected often enough, highly variable) those with few counts were
    unlucky more often than not: the maximum of the likelihood, total / exposure, is too small for them (Robbins 1956;
    Efron & Morris 1973).

    Parameters
    ----------
    total
        Sum of the counts of every variable, shape ``(n_vars,)``.
    exposure
        Sum of the size factors of the observations it was counted in, same shape.
    index
        Variance of a total by its mean, 1 for Poisson's.

    Returns
    -------
    Tensor
        Expected means, float64. Variables that were never observed keep total / exposure, that is NaN.
    """
    total, exposure = total.to(torch.float64) / index, exposure.to(torch.float64) / index
    mean = total / exposure
    observed = exposure > 0.0
    if not float(total[observed].sum()) > 0.0:
        return mean
    counted, exposed = total[observed].unsqueeze(1), exposure[observed].unsqueeze(1)
    steps = torch.linspace(-_REACH, _REACH, _N_POINTS, dtype=torch.float64)
    # a grid for every variable, which covers its likelihood
    log_mean = torch.log((counted + 0.5) / exposed) + steps / torch.sqrt(counted + 0.5)
    likelihood = counted * log_mean - exposed * log_mean.exp()
    location, spread = float(log_mean[:, _N_POINTS // 2].mean()), 2.0
    for _ in range(_ROUNDS):
        prior = -0.5 * ((log_mean - location) / spread) ** 2
        weights = torch.softmax(likelihood + prior, dim=1)
        before = location, spread
        location = float((weights * log_mean).sum(1).mean())
        square = float((weights * log_mean.square()).sum(1).mean())
        spread = max(math.sqrt(max(square - location**2, 0.0)), _LEAST_SPREAD)
        if math.dist(before, (location, spread)) < _SETTLED:
            break
    mean[observed] = (weights * log_mean.exp()).sum(1)
    return mean


def dispersion_index(totals: Tensor, exposures: Tensor) -> float:
    """Index for :func:`posterior_means` with which one half of the observations says most of the other.

    Only variables of few counts are asked: what others have hardly depends on the index, and one that three
    observations have thousands of, all in one half, would decide for all.

    Parameters
    ----------
    totals, exposures
        As there, of both halves, shape ``(2, n_vars)``.
    """
    in_both = (exposures > 0.0).all(0).nonzero().squeeze(1)
    in_both = in_both[:: math.ceil(len(in_both) / _MOST_TRIED) or 1]
    (total, other), (exposure, other_exposure) = totals[:, in_both].double(), exposures[:, in_both].double()
    few = total + other <= _FEW
    if not float(total.sum()) > 0.0 or not few.any():
        return 1.0

    def surprise(index: float) -> float:
        mean = posterior_means(total, exposure, index)
        return float((other_exposure * mean - other * mean.log())[few].sum())

    return min(_INDICES, key=surprise)
