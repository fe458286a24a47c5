"""The training objective: noise levels (TimeSampler), and losses (Bregman, negative binomial)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from countsdiff.arguments import check_choice
from countsdiff.core.schedule import ScheduleValue, Spacing, SurvivalSchedule, check_schedule

LossWeight = Callable[[ScheduleValue], Tensor]

_WEIGHTS: dict[str, LossWeight] = {
    # the evidence lower bound of the pure-death process: rate of births −p′/(1−p)
    "elbo": lambda value: -value.dp / (1.0 - value.p),
    "paper": lambda value: -value.dp,
    "unit": lambda value: torch.ones_like(value.p),
}


def get_weight(weight: str | LossWeight) -> LossWeight:
    """Return a loss weight w(p, p′) from its name (elbo, paper, unit) or a function of a :class:`ScheduleValue`.

    Parameters
    ----------
    weight
        Name, or function.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if callable(weight):
        return weight
    if weight not in _WEIGHTS:
        raise ValueError(f"Unknown loss weight {weight!r}; choose one of {sorted(_WEIGHTS)} or give a function.")
    return _WEIGHTS[weight]


@dataclass(frozen=True)
class NoiseLevels:
    """Survival probabilities drawn for a batch, and the factor that makes their average loss the weighted integral.

    The integral runs over the survival probabilities up to ``largest_p``, see :class:`TimeSampler`, and is divided by
    it in ``spacing="p"``; in ``spacing="t"`` all later ones count as if they were at ``largest_p``.

    Attributes
    ----------
    p
        Survival probability per row, shape ``(n_obs, 1)``.
    weight
        w(t) / density(t) per row, shape ``(n_obs, 1)``.
    """

    p: Tensor
    weight: Tensor


@dataclass(frozen=True)
class TimeSampler:
    """Draws stratified noise levels: the rows of a batch share the unit interval evenly, which cuts the variance.

    With the elbo weight and draws uniform in p, the loss does not depend on the schedule (docs/theory).

    Parameters
    ----------
    schedule
        Survival schedule.
    weight
        Loss weight, see :func:`get_weight`.
    spacing
        Draw uniformly in survival probability (``"p"``) or in time (``"t"``, the paper).
    share_empty
        Share of rows that sit at p = 0 exactly, where one-pass imputation and every sample begin.
    largest_p
        Upper end of the survival probabilities: near p = 1 little is left to predict, and 1 / (1 − p) explodes. Times
        with more survivors are taken to it in ``spacing="t"`` and left out in ``spacing="p"``.

    Raises
    ------
    TypeError
        If the schedule is none.
    ValueError
        If a setting is unknown or out of range.

    Notes
    -----
    Weights below p = .001 are those of p = .001, since slopes may vanish at 0. The weighted integral is met but for
    that piece: most weights hardly see it, ``"unit"`` in ``spacing="p"`` does (.97 of the integral with the cosine
    schedule, .48 with the logit-linear one, whose time is spent there).
    """

    schedule: SurvivalSchedule
    weight: str | LossWeight = "elbo"
    spacing: Spacing = "p"
    share_empty: float = 0.5
    largest_p: float = 0.98

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        get_weight(self.weight)  # an unknown name is an error here, not in the first minibatch
        if not 0.0 <= self.share_empty <= 1.0:
            raise ValueError(f"share_empty is a share, in [0, 1]; got {self.share_empty}.")
        check_choice(get_args(Spacing), spacing=self.spacing)

    def __call__(
        self, n_obs: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> NoiseLevels:
        """Draw noise levels for `n_obs` rows, in random order."""
        strata = torch.randperm(n_obs, generator=generator, device=device)
        even = (strata + torch.rand(n_obs, generator=generator, device=device)) / n_obs
        empty = even < self.share_empty
        # the rows that are left share the unit interval as evenly as all of them did
        even = ((even - self.share_empty) / max(1.0 - self.share_empty, 1e-6)).clamp(0.0, 1.0)
        # slopes may vanish at p = 0, where weights are then 0 / 0: they are taken just inside
        inside = torch.full_like(even, 1e-3)
        if self.spacing == "p":
            p = even * self.largest_p
            inside = torch.where(empty, inside, torch.maximum(p, inside))
            t = self.schedule.inverse(inside)
        else:
            t = torch.maximum(even, self.schedule.inverse(torch.full_like(even, self.largest_p)))
            p = self.schedule(t).p
            t = torch.where(empty, self.schedule.inverse(inside), t)
            inside = torch.where(empty, inside, p)
        p = torch.where(empty, torch.zeros_like(p), p)
        value = ScheduleValue(p=inside, dp=self.schedule.slope(t))
        weight = get_weight(self.weight)(value)
        # the weighted integral over t, drawn uniformly in p; empty rows stand for the p next to 0 in either case
        weight = torch.where(empty | (self.spacing == "p"), weight / -value.dp, weight)
        return NoiseLevels(p=p.unsqueeze(1), weight=weight.unsqueeze(1))


def bregman_loss(rate: Tensor, lost: Tensor) -> Tensor:
    """Bregman divergence of the Poisson likelihood up to a constant, r − y log r, per entry.

    Parameters
    ----------
    rate
        Predicted lost counts r > 0 (CountsDiff, arXiv 2604.03779). Minimised by r = E[y | x_t].
    lost
        y = x_0 − x_t.
    """
    return rate - lost * torch.log(rate + 1e-12)


def negative_binomial_loss(lost: Tensor, shape: Tensor, mean: Tensor) -> Tensor:
    """Negative log-likelihood of NegBin(shape, mean) per entry, up to log y!, which no parameter touches.

    Parameters
    ----------
    lost
        Whole numbers y.
    shape
        Shape > 0; the variance is mean + mean² / shape.
    mean
        Mean > 0.
    """
    total = shape + mean
    return -_log_rising(shape, lost) + shape * torch.log1p(mean / shape) - lost * torch.log((mean + 1e-12) / total)


def _log_rising(shape: Tensor, lost: Tensor) -> Tensor:
    """Return log Γ(shape + y) − log Γ(shape): zero where y is, so the CPU works on the other entries only."""
    if lost.device.type != "cpu":
        return torch.lgamma(shape + lost) - torch.lgamma(shape)
    at = lost.nonzero(as_tuple=True)
    some = shape[at]
    return torch.zeros_like(shape).index_put(at, torch.lgamma(some + lost[at]) - torch.lgamma(some))
