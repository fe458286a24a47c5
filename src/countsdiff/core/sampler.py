"""The reverse process: from nothing to counts, by births."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from countsdiff.core.counting import CountLaw, binomial_quantile
from countsdiff.core.denoiser import Context, DenoiserFn, Intensity
from countsdiff.core.process import attrition_limit, birth_exposure, survivors
from countsdiff.core.random import RowGenerator
from countsdiff.core.schedule import CosineSchedule, Spacing, SurvivalSchedule


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
        Share η of the largest possible attrition, σ = η σ_max: how much of what was born dies again in each step, which
        lets later steps correct earlier ones. 0 is pure birth.
    schedule
        Survival schedule; it matters for ``spacing="t"`` only.
    """

    n_steps: int = 20
    spacing: Spacing = "p"
    attrition: float = 0.0
    schedule: SurvivalSchedule = CosineSchedule()

    def __post_init__(self) -> None:
        if not 0.0 <= self.attrition <= 1.0:
            raise ValueError(f"Attrition is a share of its largest value, in [0, 1]; got {self.attrition:g}.")

    def survival_grid(self) -> list[float]:
        """Increasing survival probabilities from 0 to 1, ``n_steps + 1`` of them."""
        p = self.schedule(self.schedule.time_grid(self.n_steps, self.spacing)).p
        if self.spacing == "p":  # whatever times the schedule has for them
            p = torch.linspace(0.0, 1.0, self.n_steps + 1, dtype=torch.float64)
        return [float(v) for v in p]


@dataclass(frozen=True)
class SamplerState:
    """What a callback sees after every reverse step."""

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

    Returns
    -------
    Tensor
        Whole numbers on noised entries, zero elsewhere; shape ``(n_obs, n_vars)``.
    """
    config = config or SamplerConfig()
    grid = config.survival_grid()
    x = torch.zeros_like(context.counts)
    for step, (p_t, p_s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        attrition = config.attrition * attrition_limit(p_t, p_s)
        intensity = denoiser(x, torch.full_like(x[:, :1], p_t), context)
        exposure = birth_exposure(p_t, p_s, attrition)
        born = births(intensity, p_t, exposure, context.noised, generator)
        x = survivors(x, attrition, generator) + born
        if callback is not None:
            callback(SamplerState(step, p_s, x, intensity))
    return x


def births(intensity: Intensity, p_t: float, exposure: float, noised: Tensor, generator: RowGenerator) -> Tensor:
    """Births during a reverse step.

    Where the head knows the law of the rate, births over the exposure are negative binomial, exactly. Where it knows
    the mean alone, the lost counts are rounded at random to whole numbers and each is born with probability β
    (CountsDiff's default).

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
    """
    event_shape = intensity.mean.shape[1:]
    mean = intensity.mean * noised
    if intensity.shape is not None:
        return CountLaw(mean * exposure, intensity.shape).quantile(generator.uniform(*event_shape))
    lost = torch.floor(mean * (1.0 - p_t) + generator.uniform(*event_shape))
    beta = torch.full_like(mean, min(1.0, exposure / (1.0 - p_t)))
    return binomial_quantile(generator.uniform(*event_shape), lost, beta)
