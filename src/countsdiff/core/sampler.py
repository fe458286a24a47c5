"""The reverse process: from nothing to counts, by births."""

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from countsdiff.arguments import check_choice, check_whole
from countsdiff.core.count_law import CountLaw
from countsdiff.core.counting import binomial_quantile
from countsdiff.core.interfaces import Context, DenoiserFn, Intensity
from countsdiff.core.process import attrition_limit, birth_exposure, survivors
from countsdiff.core.random import RowGenerator, check_generator
from countsdiff.core.schedule import CosineSchedule, Spacing, SurvivalSchedule, check_schedule

BirthRule = Literal["law", "stochastic", "round", "poisson"]
AttritionKind = Literal["rescaled", "capped"]


@dataclass(frozen=True)
class SamplerConfig:
    """How to walk back from the empty state.

    Parameters
    ----------
    n_steps
        Number of reverse steps, each one network pass (two under guidance).
    spacing
        Steps of equal survival probability (``"p"``) or equal time on the schedule (``"t"``).
    attrition
        η: how much of what was born dies again in each step, which lets later steps correct earlier ones. 0 is pure
        birth.
    attrition_kind
        ``"rescaled"``: σ = η σ_max of the step, so that 1 is the largest possible attrition; ``"capped"``:
        σ = min(η, σ_max).
    births
        ``"law"``: the law of the head, negative binomial births where it knows their dispersion, else as
        ``"stochastic"``, which rounds the predicted lost counts at random and lets each be born with probability β
        (CountsDiff's default); ``"round"`` rounds to the nearest number (Blackout Diffusion's); ``"poisson"`` draws
        Poisson births (JUMP's).
    schedule
        Survival schedule; it matters for ``spacing="t"`` only.

    Raises
    ------
    TypeError
        If the schedule is none.
    ValueError
        If a setting is unknown or out of range.
    """

    n_steps: int = 20
    spacing: Spacing = "p"
    attrition: float = 0.0
    attrition_kind: AttritionKind = "rescaled"
    births: BirthRule = "law"
    schedule: SurvivalSchedule = CosineSchedule()

    def __post_init__(self) -> None:
        if not (isinstance(self.attrition, numbers.Real) and 0.0 <= self.attrition <= 1.0):
            raise ValueError(f"Attrition is a share, in [0, 1]; got {self.attrition!r}.")
        check_whole(n_steps=self.n_steps)
        check_schedule(self.schedule)
        self.schedule.time_grid(self.n_steps, self.spacing)  # or raises
        check_choice(get_args(AttritionKind), attrition_kind=self.attrition_kind)
        check_choice(get_args(BirthRule), births=self.births)

    def attrition_between(self, p_t: float, p_s: float) -> float:
        """Share σ of the present molecules that dies in the step from `p_t` to `p_s`."""
        limit = attrition_limit(p_t, p_s)
        return self.attrition * limit if self.attrition_kind == "rescaled" else min(self.attrition, limit)

    def survival_grid(self) -> list[float]:
        """Increasing survival probabilities from 0 to 1, ``n_steps + 1`` of them; fewer where steps have no length."""
        if self.spacing == "p":  # whatever times the schedule has for them
            p = torch.linspace(0.0, 1.0, self.n_steps + 1, dtype=torch.float64)
        else:
            p = self.schedule(self.schedule.time_grid(self.n_steps, self.spacing)).p
        return sorted({float(v) for v in p})


@dataclass(frozen=True)
class SamplerState:
    """What a callback sees after every reverse step.

    Attributes
    ----------
    step
        Number of the step, from 0.
    p
        Survival probability that the step has reached.
    x
        Counts at `p`, shape ``(n_obs, n_vars)``.
    intensity
        The denoiser's answer that the births were drawn from.
    """

    step: int
    p: float
    x: Tensor
    intensity: Intensity


@torch.no_grad()
def sample(
    denoiser: DenoiserFn,
    context: Context,
    generator: RowGenerator,
    config: SamplerConfig | None = None,
    callback: Callable[[SamplerState], None] | None = None,
    *,
    start: Tensor | None = None,
    p: float = 0.0,
) -> Tensor:
    """Draw integer counts for the noised entries, jointly, given the known ones.

    Parameters
    ----------
    denoiser
        Intensity of births; wrapped by guidance if wanted.
    context
        What is known.
    generator
        Row-wise source of randomness: a row's draw does not depend on its batch.
    config
        Steps, spacing and attrition.
    callback
        Called after every step with a :class:`SamplerState`.
    start, p
        Counts on noised entries to begin with, and their survival probability; by default nothing, at 0.

    Returns
    -------
    Tensor
        Whole numbers on noised entries, zero elsewhere; shape ``(n_obs, n_vars)``.

    Raises
    ------
    TypeError
        If the generator is no :class:`RowGenerator`, or the denoiser answers with something else than intensities.
    ValueError
        If the generator has other rows than the context, or intensities are of another shape than counts.
    """
    check_generator(generator, len(context.counts))
    config = config or SamplerConfig()
    grid = [p, *(later for later in config.survival_grid() if later > p)]
    x = torch.zeros_like(context.counts) if start is None else start
    largest: Tensor | None = None
    for step, (p_t, p_s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        intensity = denoiser(x, torch.full_like(x[:, :1], p_t), context)
        if step == 0:
            check_intensity(intensity, x)
            largest = largest_mean(intensity)
        intensity = at_most(intensity, largest)
        x = reverse_step(x, intensity, p_t, p_s, context.noised, generator, config)
        if callback is not None:
            callback(SamplerState(step, p_s, x, intensity))
    return x


def check_intensity(intensity: Intensity, x: Tensor) -> None:
    """Check that a denoiser's answer has one mean, and one shape if any, for every entry of `x`.

    Raises
    ------
    TypeError
        If it is no :class:`Intensity`.
    ValueError
        If it is of another shape than `x`.
    """
    if not isinstance(intensity, Intensity):
        raise TypeError(f"A denoiser answers with an Intensity; got {type(intensity).__name__}.")
    for name, values in (("mean", intensity.mean), ("shape", intensity.shape)):
        if values is not None and values.shape != x.shape:
            raise ValueError(
                f"Intensity.{name} has shape {tuple(values.shape)}, and counts {tuple(x.shape)}: expand it."
            )


def largest_mean(first: Intensity) -> Tensor | None:
    """Bound of the rates λ that an intensity stands for; None where it has no shape.

    Later intensities of a path are expectations of the same rates, and hardly ever exceed it. A network that is shown
    its own draws knows no such bound: an entry of mean 17 came to 1,300 in 50 steps.

    For a gamma law of shape r and mean μ, P(λ ≥ μ (1 + √(2ℓ/r) + ℓ/r)) ≤ exp(−ℓ) (Boucheron, Lugosi & Massart 2013,
    section 2.4): here one in a thousand, and for shapes from .1 to 10 one in a hundred thousand.
    """
    if first.shape is None:
        return None
    unlikely = math.log(1e3)
    return first.mean * (1.0 + (2.0 * unlikely / first.shape).sqrt() + unlikely / first.shape)


def at_most(intensity: Intensity, largest: Tensor | None) -> Intensity:
    """Intensity whose means are within a bound, if there is one, see :func:`largest_mean`."""
    return intensity if largest is None else Intensity(torch.minimum(intensity.mean, largest), intensity.shape)


def reverse_step(
    x_t: Tensor,
    intensity: Intensity,
    p_t: float,
    p_s: float,
    noised: Tensor,
    generator: RowGenerator,
    config: SamplerConfig,
) -> Tensor:
    """Counts after one reverse step: survivors of x_t, and births by the denoiser's `intensity` at `p_t`."""
    attrition = config.attrition_between(p_t, p_s)
    born = births(intensity, p_t, birth_exposure(p_t, p_s, attrition), noised, generator, config.births)
    return survivors(x_t, attrition, generator) + born


def births(
    intensity: Intensity,
    p_t: float,
    exposure: float,
    noised: Tensor,
    generator: RowGenerator,
    rule: BirthRule = "law",
) -> Tensor:
    """Births during a reverse step.

    Parameters
    ----------
    intensity
        The denoiser's answer at `p_t`.
    p_t
        Survival probability before the step.
    exposure
        Survival probability the step makes up for, see :func:`~countsdiff.core.process.birth_exposure`.
    noised
        Entries to draw; boolean.
    generator
        Row-wise source of randomness.
    rule
        See :class:`SamplerConfig`.
    """
    event_shape = intensity.mean.shape[1:]
    # the others, nine tenths of them in an ordinary imputation, would cost as much
    at = noised.flatten().nonzero().squeeze(1)
    mean = intensity.mean.flatten().index_select(0, at)
    shape = intensity.shape if rule == "law" else None
    if rule == "poisson" or shape is not None:
        law = CountLaw(mean * exposure, None if shape is None else shape.flatten().index_select(0, at))
        born = law.quantile(generator.uniform(*event_shape, at=at))
    else:
        lost = mean * (1.0 - p_t)
        if rule == "round":
            lost = torch.round(lost)
        else:  # not floor(lost + u): of 255 and u next to 1 float32 makes 256
            whole = lost.floor()
            lost = whole + (lost - whole + generator.uniform(*event_shape, at=at) >= 1.0)
        beta = torch.full_like(mean, min(1.0, exposure / (1.0 - p_t)))
        born = binomial_quantile(generator.uniform(*event_shape, at=at), lost, beta)
    return torch.zeros_like(intensity.mean).flatten().index_copy(0, at, born).view_as(intensity.mean)
