"""Survival schedules in closed form, and a user's own."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from countsdiff.core.schedule._base import SurvivalSchedule


class CosineSchedule(SurvivalSchedule):
    """p(t) = cos²(πt/2), the default of the CountsDiff paper (arXiv 2604.03779)."""

    def survival(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return torch.cos(0.5 * math.pi * t).square()

    def slope(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return -0.5 * math.pi * torch.sin(math.pi * t).clamp(min=0.0)  # π in floating point is a little off

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
        if not bool((values.diff() < 0).all()):
            raise ValueError("A survival schedule must decrease: molecules that are gone do not come back.")

    def survival(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return self.function(t)

    def slope(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # a copy: what was made in inference mode has no gradients
            at = t.detach().clone().requires_grad_(True)
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
