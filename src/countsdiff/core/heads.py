"""Heads: what the two numbers per entry that a backbone gives make of a base rate, as an intensity of births."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from countsdiff.core.calibration import Calibration
from countsdiff.core.interfaces import Intensity

HeadName = Literal["gamma", "rate", "x0"]
_SOFTPLUS_ONE = 0.5413248546129181  # softplus(0.541…) = 1: an untouched network predicts the base rate


@dataclass(frozen=True)
class Entries:
    """What is known of every entry before a network has its say.

    Attributes
    ----------
    x_t
        Counts on noised entries, zero elsewhere; as everything here of shape ``(n_obs, n_vars)`` but for `p`.
    p
        Survival probability, shape ``(n_obs, 1)``.
    counts
        Counts seen, of known and noised entries.
    exposure
        What they were seen at: 1 for known, p for noised, 0 for absent entries.
    base
        Base rate: variable's mean × size factor.
    dispersion
        Shape of the gamma law of each variable's rate over observations, shape ``(n_vars,)``.
    estimate
        Intensities by the denoiser's estimate, None where it has none.
    """

    x_t: Tensor
    p: Tensor
    counts: Tensor
    exposure: Tensor
    base: Tensor
    dispersion: Tensor
    estimate: Tensor | None

    def start(self) -> Tensor:
        """Intensity without a network: the estimate, or what conjugacy makes of the entry alone."""
        if self.estimate is not None:
            return self.estimate
        return self.base * (self.dispersion + self.counts) / (self.dispersion + self.exposure * self.base)


class Head(nn.Module):
    """Last layer of a denoiser.

    Subclasses give :meth:`forward`. A backbone whose outputs are 0 has nothing to add: the intensity is then what is
    known without it. Level and drift of any head are calibrated; slope and shapes of :class:`GammaHead` alone, since
    they go by its formula.
    """

    takes_estimate = False  # whether it starts from Entries.start(), and so from an estimate if there is one

    def __init__(self) -> None:  # without arguments, where nn.Module takes any
        super().__init__()

    def forward(self, shift: Tensor, shape_shift: Tensor, entries: Entries, calibration: Calibration) -> Intensity:
        """Intensity of births.

        Parameters
        ----------
        shift
            How far the backbone moves the log mean, calibrated; shape ``(n_obs, n_vars)``.
        shape_shift
            How far it moves the log shape, within ±6; same shape.
        entries
            What is known besides.
        calibration
            Of shapes: ``calibration.log_shape``; means are calibrated afterwards.
        """
        raise NotImplementedError


class GammaHead(Head):
    """Mean μ and shape r of a gamma law from the context; the entry's own count c, seen at exposure e, by conjugacy.

    λ = μ (r + c) / (r + e μ), and births are negative binomial of shape r + c.

    Parameters
    ----------
    n_vars
        Number of variables.
    """

    def __init__(self, n_vars: int):
        super().__init__()
        # a variable's dispersion over all observations is far too wide for those that plainly express it
        self.shape_slope = nn.Parameter(torch.zeros(n_vars))

    def forward(self, shift: Tensor, shape_shift: Tensor, entries: Entries, calibration: Calibration) -> Intensity:
        """Intensity with a shape, see :class:`Head`."""
        mu = entries.base * multiplier(shift)
        fixed_mu = mu.detach()
        log_shape = calibration.log_shape(shape_shift + self.shape_slope * torch.log1p(fixed_mu), fixed_mu, entries.p)
        shape = entries.dispersion * torch.exp(log_shape)
        # the mean's loss fits dispersion badly (docs/theory): only the likelihood of the births moves the shape
        fixed = shape.detach()
        mean = mu * (fixed + entries.counts) / (fixed + entries.exposure * mu)
        return Intensity(mean=mean, shape=shape + entries.counts)


class RateHead(Head):
    """λ itself, by a softplus: the paper's."""

    def forward(self, shift: Tensor, shape_shift: Tensor, entries: Entries, calibration: Calibration) -> Intensity:
        """Intensity without a shape, see :class:`Head`."""
        return Intensity(mean=entries.base * F.softplus(shift + _SOFTPLUS_ONE))


class X0Head(Head):
    """E[x_0] = x_t + (1 − p) λ, where a softplus scales the λ that is known without a network."""

    takes_estimate = True

    def forward(self, shift: Tensor, shape_shift: Tensor, entries: Entries, calibration: Calibration) -> Intensity:
        """Intensity without a shape, see :class:`Head`."""
        # not a softplus of x̂_0 itself: it would be clipped at x_t, and have no gradient where it is below
        return Intensity(mean=entries.start() * F.softplus(shift + _SOFTPLUS_ONE))


class BoundedHead(Head):
    """Of the room left below a ceiling, the share to be born; its log odds start from the λ known without a network.

    Parameters
    ----------
    ceiling
        Largest count there can be, such as 255 for pixels.

    Raises
    ------
    ValueError
        If the ceiling is not finite.
    """

    takes_estimate = True

    def __init__(self, ceiling: float):
        super().__init__()
        if not math.isfinite(ceiling):
            raise ValueError(f"A bounded head needs the largest count there can be, a finite ceiling; got {ceiling}.")
        self.ceiling = ceiling

    def forward(self, shift: Tensor, shape_shift: Tensor, entries: Entries, calibration: Calibration) -> Intensity:
        """Intensity without a shape, see :class:`Head`."""
        room, to_go = self.ceiling - entries.x_t, 1.0 - entries.p
        return Intensity(mean=_within(entries.start(), multiplier(shift), room, to_go))


_HEADS: dict[HeadName, Callable[[int], Head]] = {
    "gamma": GammaHead,
    "rate": lambda n_vars: RateHead(),
    "x0": lambda n_vars: X0Head(),
}


def get_head(name: HeadName, n_vars: int) -> Head:
    """Build a head by its name.

    Parameters
    ----------
    name
        ``"gamma"``, ``"rate"`` or ``"x0"``.
    n_vars
        Number of variables.

    Raises
    ------
    ValueError
        If there is no head of this name.
    """
    if name not in _HEADS:
        raise ValueError(f"Unknown head {name!r}; choose {', '.join(map(repr, _HEADS))}.")
    return _HEADS[name](n_vars)


def multiplier(shift: Tensor) -> Tensor:
    """Positive multiple of the base rate that a backbone's output x stands for.

    It is e^{3 asinh(x/3)}: e^x around 0, and (2|x|/3)^±3 far from it.

    Most entries are zeros, and with e^x a network is overconfident about them: rates that it predicted as .0065 were
    .0165 in truth. For large x, an exponential turns slight overconfidence into exploding rates in shallow cells.
    """
    y = shift / 3.0
    exp_asinh = y + torch.sqrt(y * y + 1.0)  # torch.asinh itself is many times slower on a CPU
    return exp_asinh * exp_asinh * exp_asinh


def as_shift(log_multiple: Tensor) -> Tensor:
    """Output of a backbone that multiplies the base rate, or its odds below a ceiling, by e to the power of this."""
    return 3.0 * torch.sinh(log_multiple / 3.0)


def _within(rate: Tensor, factor: Tensor, room: Tensor, to_go: Tensor) -> Tensor:
    """Multiply the odds of a lost count, as `rate` has them, by `factor`: rates that bear no more than `room` in all.

    Not room · sigmoid(log odds) / to_go: nothing is divided by `to_go`, which ends at 0, where this is rate · factor.
    """
    whole = room.clamp(min=1.0)
    rate = torch.minimum(rate, 0.99 * whole / to_go)
    share = rate * to_go / whole
    return torch.where(room > 0.0, rate * factor / (1.0 - share + share * factor), 0.0)
