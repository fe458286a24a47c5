"""Learning to Jump: counts for data that are none (Chen & Zhou 2023, arXiv 2305.18375)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from countsdiff.core.counting import poisson_quantile


@dataclass(frozen=True)
class PoissonRandomisation:
    """Turns non-negative numbers x into counts z ~ Poisson(ζ x), and counts back into numbers z / ζ.

    What thinning takes from z is independent of what it leaves, so the intensity of births is ζ E[x | z_t]. JUMP
    is therefore the ``"rate"`` head on these counts, with ``births="poisson"`` and :class:`JumpSchedule`; its
    prediction x̂_0 is the intensity over ζ.

    Parameters
    ----------
    scale
        ζ > 0: numbers come back with a variance of x / ζ around what they were.

    Raises
    ------
    ValueError
        If the scale is not positive.
    """

    scale: float

    def __post_init__(self) -> None:
        if not self.scale > 0.0:
            raise ValueError(f"The scale of Poisson randomisation must be positive; got {self.scale:g}.")

    def counts(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw z ~ Poisson(ζ values)."""
        mean = values * self.scale
        if mean.device.type == "mps":  # for which torch has no Poisson
            return poisson_quantile(torch.rand(mean.shape, generator=generator, device=mean.device), mean)
        return torch.poisson(mean, generator=generator)

    def values(self, counts: Tensor) -> Tensor:
        """Return counts / ζ: what a count, a mean or an intensity is on the scale of the data."""
        return counts / self.scale
