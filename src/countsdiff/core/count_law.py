"""The predictive law of a count: Poisson or negative binomial, entry by entry."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from countsdiff.core.counting import (
    exact,
    negative_binomial_cdf,
    negative_binomial_log_pmf,
    negative_binomial_quantile,
    poisson_cdf,
    poisson_log_pmf,
    poisson_quantile,
)

_ALMOST_NONE = 1e-12  # nearer to 0 and 1 quantiles are a matter of rounding


@dataclass(frozen=True)
class CountLaw:
    """Poisson law per entry, or negative binomial where a shape is given.

    Attributes
    ----------
    mean
        Means, not negative.
    shape
        Shapes r > 0 of the negative binomial (variance mean + mean² / r), or ``None`` for Poisson.
    """

    mean: Tensor
    shape: Tensor | None = None

    @property
    def std(self) -> Tensor:
        """Standard deviation."""
        if self.shape is None:
            return self.mean.sqrt()
        return (self.mean + self.mean.square() / self.shape).sqrt()

    def split(self, sizes: Sequence[int]) -> "list[CountLaw]":
        """Laws of groups of so many variables that stand next to each other."""
        means = self.mean.split(list(sizes), dim=1)
        if self.shape is None:
            return [CountLaw(mean) for mean in means]
        return [CountLaw(mean, shape) for mean, shape in zip(means, self.shape.split(list(sizes), dim=1), strict=True)]

    def quantile(self, u: Tensor) -> Tensor:
        """Smallest whole number whose cumulative probability reaches `u`; uniform `u` make this a sample."""
        if self.shape is None:
            return poisson_quantile(u, self.mean)
        return negative_binomial_quantile(u, self.shape, self.mean)

    def shortest_interval(self, coverage: float) -> tuple[Tensor, Tensor]:
        """Both ends, included, of the shortest run of whole numbers that holds at least `coverage` of the probability.

        The law has one mode. So while its first number is less likely than the one behind its end, a run that just
        suffices can move up, and need not grow for it: the first that cannot is found by bisection, and what it holds
        beyond need is taken off its start.

        Parameters
        ----------
        coverage
            Share of the probability, in (0, 1).

        Returns
        -------
        tuple
            Lower and upper ends, whole numbers, with the shape and dtype of the means.

        Raises
        ------
        ValueError
            If the coverage is not in (0, 1).
        """
        if not 0.0 < coverage < 1.0:
            raise ValueError(f"coverage is a share of the probability, in (0, 1); got {coverage}.")
        whole = CountLaw(*exact(*(v.reshape(-1) for v in (self.mean, self.shape) if v is not None)))
        lower, upper = torch.zeros_like(whole.mean), whole.quantile(torch.full_like(whole.mean, coverage))
        # elsewhere too little is left without 0
        at = (whole._log_pmf(lower).exp() <= 1.0 - coverage).nonzero().squeeze(1)
        low, high = torch.full_like(lower[at], -1.0), whole[at].quantile(torch.full_like(lower[at], 1.0 - coverage))
        while (wide := (high - low > 1.0).nonzero().squeeze(1)).numel() > 0:
            law, middle = whole[at[wide]], torch.ceil((low[wide] + high[wide]) / 2.0)
            stays = law._log_pmf(middle) >= law._log_pmf(law._end(middle, coverage) + 1.0)
            low[wide], high[wide] = torch.where(stays, low[wide], middle), torch.where(stays, middle, high[wide])
        law = whole[at]
        upper[at] = law._end(high, coverage)
        spare = law._cdf(upper[at]) - coverage
        lower[at] = torch.where(spare > 0.0, law.quantile(spare.clamp(min=_ALMOST_NONE)), 0.0)
        return lower.view(self.mean.shape).to(self.mean), upper.view(self.mean.shape).to(self.mean)

    def mean_log1p(self, scale: Tensor) -> Tensor:
        """E[log(1 + scale · X)]; see :func:`mean_log1p`."""
        return mean_log1p(self.mean, self.shape, scale)

    def __getitem__(self, at: Tensor) -> "CountLaw":
        return CountLaw(self.mean[at], None if self.shape is None else self.shape[at])

    def _end(self, start: Tensor, coverage: float) -> Tensor:
        """End of the shortest run from `start` that holds at least `coverage`."""
        below = torch.where(start > 0.0, self._cdf((start - 1.0).clamp(min=0.0)), 0.0)
        return self.quantile((below + coverage).clamp(max=1.0 - _ALMOST_NONE))

    def _cdf(self, k: Tensor) -> Tensor:
        return poisson_cdf(k, self.mean) if self.shape is None else negative_binomial_cdf(k, self.shape, self.mean)

    def _log_pmf(self, k: Tensor) -> Tensor:
        if self.shape is None:
            return poisson_log_pmf(k, self.mean)
        return negative_binomial_log_pmf(k, self.shape, self.mean)


def mean_log1p(mean: Tensor, shape: Tensor | None, scale: Tensor) -> Tensor:
    """E[log(1 + scale · X)] for X ~ NegBin(shape, mean), or Poisson(mean).

    By log(1 + y) = ∫ (1 − e^{−ys}) e^{−s} / s ds the mean needs X's generating function only, here at nodes evenly
    spaced in log s (the integrand is analytic and dies at both ends: the trapezoid rule converges exponentially; the
    error is below 1e-5 for scale · mean ≤ 1e6).

    Parameters
    ----------
    mean, shape
        Law of X, see :class:`CountLaw`.
    scale
        Positive factor, broadcast against `mean`.

    Returns
    -------
    Tensor
        Means of the logarithm, dtype of `mean`.
    """
    step = 0.75
    total = torch.zeros_like(mean)
    for node in range(-40, 6):
        s = math.exp(node * step)
        vanishing = -torch.expm1(-scale * s)  # 1 − z at the generating function's argument z = e^{−scale·s}
        if shape is None:
            log_generating = -mean * vanishing
        else:
            log_generating = -shape * torch.log1p(mean * vanishing / shape)
        total = total - torch.expm1(log_generating) * (step * math.exp(-s))
    return total
