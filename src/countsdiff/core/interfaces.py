"""What goes into a denoiser and what comes out: values between stages, and what each stage has to answer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from countsdiff.core.count_law import CountLaw


@dataclass(frozen=True)
class Context:
    """What is known of a batch of observations. Every entry is known, noised, or absent (neither).

    Attributes
    ----------
    counts
        Counts of the known entries, zero elsewhere; shape ``(n_obs, n_vars)``.
    known
        Entries that enter as clean evidence; boolean.
    noised
        Entries that are hidden or to be imputed: they enter as x_t; boolean.
    categories
        Codes of the categorical covariates, −1 where unknown; int64, shape ``(n_obs, n_categorical)``.
    continuous
        Continuous covariates, NaN where unknown; shape ``(n_obs, n_continuous)``.

    Raises
    ------
    TypeError
        If counts are not float32.
    """

    counts: Tensor
    known: Tensor
    noised: Tensor
    categories: Tensor
    continuous: Tensor

    def __post_init__(self) -> None:
        if self.counts.dtype != torch.float32:
            raise TypeError(f"Counts of a Context are float32; got {self.counts.dtype}: take counts.float().")

    def without_covariates(self) -> "Context":
        """The same context with every covariate unknown: what an unconditional prediction sees."""
        return replace(
            self,
            categories=torch.full_like(self.categories, -1),
            continuous=torch.full_like(self.continuous, float("nan")),
        )


@dataclass(frozen=True)
class Intensity:
    """Law of the births still to come, per unit of survival probability.

    Attributes
    ----------
    mean
        λ ≥ 0; births over exposure Δp have mean λ Δp.
    shape
        Shape of the gamma law of the birth rate: births over Δp are NegBin(shape, λ Δp). ``None`` where the head
        predicts a mean alone.
    """

    mean: Tensor
    shape: Tensor | None = None

    def births(self, exposure: float | Tensor) -> CountLaw:
        """Law of the births over `exposure`, taking them for Poisson where the head predicts a mean alone."""
        return CountLaw(self.mean * exposure, self.shape)


DenoiserFn = Callable[[Tensor, Tensor, Context], Intensity]
"""A denoiser: (x_t, p, context) → :class:`Intensity`."""


@dataclass(frozen=True)
class Evidence:
    """A batch as a backbone sees it: known and noised entries are the same thing, counts seen at some exposure.

    Attributes
    ----------
    log_ratio
        log((r + c) / (r + e s m)): how far count c departs from its expectation e s m (exposure, size factor, mean),
        shrunk by the variable's own dispersion r. Zero where nothing was seen; shape ``(n_obs, n_vars)``.
    exposure
        e: 1 for known, p for noised, 0 for absent entries; shape ``(n_obs, n_vars)``.
    summary
        p, and for each group of variables its log size factor and share of the expected counts seen; shape
        ``(n_obs, 1 + 2 n_groups)``. The share of noised entries is left out on purpose: it is larger when incomplete
        data are imputed than it ever is in training on them, and with it means came out too high.
    categories, continuous
        Covariates, as in :class:`Context`.
    base
        Base rate, which the backbone's first output moves; shape ``(n_obs, n_vars)``.
    factors
        Factors of the log ratios by the denoiser's factor model, shape ``(n_obs, n_factors)``; none without one.
    estimate
        Intensities by the denoiser's estimate from all that was seen, in place of what an entry's own count makes of
        the base rate; None where it has none.
    """

    log_ratio: Tensor
    exposure: Tensor
    summary: Tensor
    categories: Tensor
    continuous: Tensor
    base: Tensor
    factors: Tensor
    estimate: Tensor | None = None


@runtime_checkable
class Backbone(Protocol):
    """A network that maps evidence onto two numbers per entry, both zero where it has nothing to add.

    The first output moves the log mean away from (variable's mean × size factor), the second the log shape away from
    the variable's own. The second has to leave the trunk alone (detached), since it is trained by another loss.
    """

    def __call__(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Evidence → (log-mean shift, log-shape shift), each ``(n_obs, n_vars)``."""
        ...


def shrunken_log_ratio(counts: Tensor, expected: Tensor, dispersion: Tensor) -> Tensor:
    """How far counts depart from what was expected, on a log scale, shrunk by the variable's own dispersion."""
    return torch.log((dispersion + counts) / (dispersion + expected))
