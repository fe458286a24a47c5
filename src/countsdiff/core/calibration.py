"""What is set right once a denoiser is trained: see :mod:`countsdiff.core.fits` for how it is found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

N_DRIFT = 20  # survival probabilities at which the sum of intensities is held steady


@dataclass(frozen=True)
class Corrections:
    """What was found on cells after training; by default, nothing to correct.

    Attributes
    ----------
    level
        Factor of all means.
    slope
        Factor of the backbone's first output.
    sharpness, tail
        Shapes are multiplied by sharpness · (1 + mean / tail), or by sharpness / (1 − mean / tail) for a negative
        tail.
    drift
        Factors of all intensities at p = 0, 1/20, …, 19/20; in between they are interpolated.
    """

    level: float = 1.0
    slope: float = 1.0
    sharpness: float = 1.0
    tail: float = math.inf
    drift: Sequence[float] = (1.0,) * N_DRIFT


UNCORRECTED = Corrections()


class Calibration(nn.Module):
    """Corrections as part of a denoiser.

    Level, slope and shapes were fitted to imputation, p = 0; towards p = 1 the entries' own counts take their place.
    They are to be :meth:`set` back to nothing before a denoiser is trained (further).

    Parameters
    ----------
    shrinkage, reliability
        What few counts of a variable leave to trust, each of shape ``(n_vars,)``; default: all. Factors of its mean
        where it is imputed (an entry that was seen, p = 1, has counts of its own to go by), and of the backbone's first
        output, see :mod:`countsdiff.core.shrinkage`. They hold once the denoiser is calibrated: training would undo
        them.
    """

    shrinkage: Tensor | None
    reliability: Tensor | None
    calibrated: Tensor
    level: Tensor
    slope: Tensor
    sharpness: Tensor
    tail: Tensor
    drift: Tensor

    def __init__(self, shrinkage: Tensor | None = None, reliability: Tensor | None = None):
        super().__init__()
        self.register_buffer("shrinkage", shrinkage)
        self.register_buffer("reliability", reliability)
        # whether it was (0 or 1) is saved where it matters
        self.register_buffer("calibrated", torch.tensor(0.0), persistent=shrinkage is not None)
        self.register_buffer("level", torch.tensor(1.0))
        self.register_buffer("slope", torch.tensor(1.0))
        self.register_buffer("sharpness", torch.tensor(1.0))
        self.register_buffer("tail", torch.tensor(torch.inf))
        self.register_buffer("drift", torch.ones(N_DRIFT + 1))

    def set(self, corrections: Corrections, *, calibrated: bool = True) -> None:
        """Store what was found, and whether shrinkage and reliability hold."""
        self.calibrated.fill_(float(calibrated))
        self.level.fill_(corrections.level)
        self.slope.fill_(corrections.slope)
        self.sharpness.fill_(corrections.sharpness)
        self.tail.fill_(corrections.tail)
        self.drift[:-1] = torch.tensor(corrections.drift)  # at p = 1 nothing is left to be born

    def level_at(self, p: Tensor) -> Tensor:
        """Factor of the base rate, shape ``(n_obs, 1)``."""
        return self.level ** (1.0 - p)

    def shrunken(self, base: Tensor, p: Tensor) -> Tensor:
        """Base rates of variables as far as their means can be trusted, shape ``(n_obs, n_vars)``."""
        if self.shrinkage is None or self.training:
            return base
        return base * torch.where(p < 1.0, self.shrinkage**self.calibrated, 1.0)

    def shift(self, shift: Tensor, p: Tensor) -> Tensor:
        """First output of a backbone, as far as it can be trusted, shape ``(n_obs, n_vars)``."""
        if self.training:
            return shift
        slope = self.slope
        if self.reliability is not None:
            slope = slope * self.reliability**self.calibrated
        return shift * (slope + (1.0 - slope) * p)

    def log_shape(self, log_shape: Tensor, mean: Tensor, p: Tensor) -> Tensor:
        """Logarithms of shapes where predicted means are `mean`, all but p of shape ``(n_obs, n_vars)``."""
        if self.training:
            return log_shape
        bend = self.tail.sign() * torch.log1p(mean / self.tail.abs())
        return log_shape + (1.0 - p) * (self.sharpness.log() + bend)

    def drift_at(self, p: Tensor) -> Tensor:
        """Factor of all intensities, shape ``(n_obs, 1)``."""
        at = p * N_DRIFT
        before = at.floor().clamp(max=N_DRIFT - 1)
        start, end = self.drift[before.long()], self.drift[before.long() + 1]
        return start + (at - before) * (end - start)
