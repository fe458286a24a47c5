"""Survival schedules: which share of the molecules is still there at time t."""

from abc import ABC, abstractmethod
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


def check_schedule(schedule: object) -> None:
    """Check that a schedule is one, and not its name or a function: those :func:`get_schedule` takes.

    Raises
    ------
    TypeError
        If it is not.
    """
    if not isinstance(schedule, SurvivalSchedule):
        raise TypeError(f"schedule is a SurvivalSchedule, such as get_schedule('cosine'); got {schedule!r}.")
