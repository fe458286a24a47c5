"""Guidance: sharpening what the covariates say."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from countsdiff.core.interfaces import Context, DenoiserFn, Intensity


class Guidance(Protocol):
    """Turns a denoiser into another one of the same meaning."""

    def wrap(self, denoiser: DenoiserFn) -> DenoiserFn:
        """Return the guided denoiser."""
        ...


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """log λ_γ = γ log λ_cond + (1 − γ) log λ_uncond (Ho & Salimans 2022, on log intensities as in CountsDiff).

    Parameters
    ----------
    scale
        γ: 0 ignores the covariates, 1 is the conditional prediction (one network pass each), above 1 exaggerates it.
        The shape of the birth law is interpolated between the two predictions on the log scale, never extrapolated.

    Raises
    ------
    ValueError
        If the scale is not finite.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, Real) or not math.isfinite(self.scale):
            raise ValueError(f"The scale of guidance is a finite number; got {self.scale!r}.")

    def wrap(self, denoiser: DenoiserFn) -> DenoiserFn:
        """See :class:`Guidance`."""
        if self.scale == 1.0:
            return denoiser
        if self.scale == 0.0:
            return lambda x_t, p, context: denoiser(x_t, p, context.without_covariates())

        def guided(x_t: Tensor, p: Tensor, context: Context) -> Intensity:
            conditional = denoiser(x_t, p, context)
            unconditional = denoiser(x_t, p, context.without_covariates())
            mean = _log_mix(conditional.mean, unconditional.mean, self.scale)
            if conditional.shape is None or unconditional.shape is None:
                return Intensity(mean)
            shape = _log_mix(conditional.shape, unconditional.shape, min(max(self.scale, 0.0), 1.0))
            return Intensity(mean, shape)

        return guided


def _log_mix(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    floor = 1e-12
    return torch.exp(
        scale * torch.log(conditional.clamp(min=floor)) + (1.0 - scale) * torch.log(unconditional.clamp(min=floor))
    )
