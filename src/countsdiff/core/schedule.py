"""Survival schedules: which share of the molecules is still there at time t."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["t", "p"]


@dataclass(frozen=True)
class ScheduleValue:
    """A survival schedule and its slope at given times.

    Attributes
    ----------
    p
        Survival probability p(t), in [0, 1].
    dp
        Derivative dp/dt, never positive.
    """

    p: Tensor
    dp: Tensor


class SurvivalSchedule(ABC):
    """A decreasing map p from [0, 1] to [0, 1], with t = 0 the data and t = 1 the empty state.

    Subclasses give the smooth part (:meth:`survival`, :meth:`slope`, :meth:`inverse`). The ends are pinned here, once:
    p(0) = 1 and p(1) = 0 hold exactly whatever the formula rounds to, so no caller needs an epsilon.
    """

    @abstractmethod
    def survival(self, t: Tensor) -> Tensor:
        """Survival probability for times strictly inside (0, 1)."""

    @abstractmethod
    def slope(self, t: Tensor) -> Tensor:
        """Derivative of :meth:`survival`."""

    @abstractmethod
    def inverse(self, p: Tensor) -> Tensor:
        """Time at which the survival probability is `p`."""

    def __call__(self, t: Tensor) -> ScheduleValue:
        """Evaluate the schedule.

        Parameters
        ----------
        t
            Times in [0, 1], any shape. They are not checked: looking at their values would stall a GPU.
        """
        p = self.survival(t).clamp(0.0, 1.0)
        p = torch.where(t == 0, torch.ones_like(p), torch.where(t == 1, torch.zeros_like(p), p))
        return ScheduleValue(p=p, dp=self.slope(t))

    def time_grid(self, n_steps: int, spacing: Spacing = "p") -> Tensor:
        """Decreasing times from 1 to 0 that bound `n_steps` reverse steps.

        Parameters
        ----------
        n_steps
            Number of steps, at least 1.
        spacing
            Equal steps in survival probability (``"p"``: every step adds the same share of the molecules) or in time
            (``"t"``, the paper's choice).

        Returns
        -------
        Tensor
            Times, shape ``(n_steps + 1,)``, float64.
        """
        if n_steps < 1:
            raise ValueError(f"A reverse path needs at least one step; got n_steps={n_steps}.")
        even = torch.linspace(0.0, 1.0, n_steps + 1, dtype=torch.float64)
        if spacing == "t":
            return even.flip(0)
        if spacing != "p":
            raise ValueError(f"Unknown spacing {spacing!r}; choose 'p' or 't'.")
        grid = self.inverse(even)
        grid[0], grid[-1] = 1.0, 0.0
        return grid


class CosineSchedule(SurvivalSchedule):
    """p(t) = cos²(πt/2), the default of the CountsDiff paper (arXiv 2604.03779)."""

    def survival(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return torch.cos(0.5 * math.pi * t).square()

    def slope(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return -0.5 * math.pi * torch.sin(math.pi * t)

    def inverse(self, p: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        # atan2 keeps full precision at both ends, where arccos(sqrt(p)) loses half of the digits
        return torch.atan2((1.0 - p).sqrt(), p.sqrt()) * (2.0 / math.pi)


class LinearSchedule(SurvivalSchedule):
    """p(t) = 1 − t."""

    def survival(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return 1.0 - t

    def slope(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return -torch.ones_like(t)

    def inverse(self, p: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return 1.0 - p


class LogitLinearSchedule(SurvivalSchedule):
    """p(t) = sigmoid((1 − 2t) L): Blackout Diffusion's Fisher-information grid in continuous time.

    Parameters
    ----------
    horizon
        End time T of the pure-death process, of which L = log((1 − e^−T) / e^−T) follows (arXiv 2305.11089: 15).
    """

    def __init__(self, horizon: float = 15.0):
        if not horizon > math.log(2.0):
            raise ValueError(f"The horizon must exceed log 2, else the schedule does not decrease; got {horizon:g}.")
        self.horizon = horizon
        self.half_width = math.log(math.expm1(horizon))

    def survival(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return torch.sigmoid((1.0 - 2.0 * t) * self.half_width)

    def slope(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        p = self.survival(t)
        return -2.0 * self.half_width * p * (1.0 - p)

    def inverse(self, p: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return ((1.0 - torch.logit(p) / self.half_width) / 2.0).clamp(0.0, 1.0)


class CustomSchedule(SurvivalSchedule):
    """A user's survival function; the slope follows by automatic differentiation, the inverse by bisection.

    Parameters
    ----------
    function
        Differentiable torch function of t with p(0) = 1, p(1) = 0, decreasing.

    Raises
    ------
    ValueError
        If the function does not start at 1, end at 0 (within 1e-3) and decrease.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.function = function
        values = function(torch.linspace(0.0, 1.0, 257, dtype=torch.float64))
        if not (abs(float(values[0]) - 1.0) <= 1e-3 and abs(float(values[-1])) <= 1e-3):  # NaN fails as well
            raise ValueError(
                f"A survival schedule runs from p(0) = 1 to p(1) = 0; got p(0) = {float(values[0]):g}, "
                f"p(1) = {float(values[-1]):g}."
            )
        if not bool((values.diff() <= 0).all()):
            raise ValueError("A survival schedule must decrease: molecules that are gone do not come back.")

    def survival(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return self.function(t)

    def slope(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        with torch.enable_grad():
            at = t.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.function(at).sum(), at)
        return gradient

    def inverse(self, p: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        low, high = torch.zeros_like(p), torch.ones_like(p)
        for _ in range(60):  # 60 halvings exhaust float64
            middle = 0.5 * (low + high)
            too_early = self.function(middle) > p
            low, high = torch.where(too_early, middle, low), torch.where(too_early, high, middle)
        return 0.5 * (low + high)


_SCHEDULES: dict[str, Callable[[], SurvivalSchedule]] = {
    "cosine": CosineSchedule,
    "linear": LinearSchedule,
    "logit_linear": LogitLinearSchedule,
}


def get_schedule(schedule: str | SurvivalSchedule | Callable[[Tensor], Tensor]) -> SurvivalSchedule:
    """Return a schedule from its name, a function of t, or a schedule itself.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if isinstance(schedule, SurvivalSchedule):
        return schedule
    if callable(schedule):
        return CustomSchedule(schedule)
    if schedule not in _SCHEDULES:
        raise ValueError(f"Unknown schedule {schedule!r}; choose one of {sorted(_SCHEDULES)} or give a function of t.")
    return _SCHEDULES[schedule]()
