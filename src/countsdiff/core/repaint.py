"""Imputation by an unconditional path, overwritten with what is known as it goes (RePaint, Lugmayr et al. 2022)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from countsdiff.arguments import check_whole
from countsdiff.core.counting import binomial_quantile
from countsdiff.core.interfaces import Context, DenoiserFn
from countsdiff.core.random import RowGenerator, check_generator
from countsdiff.core.sampler import SamplerConfig, at_most, check_intensity, largest_mean, reverse_step


@dataclass(frozen=True)
class RepaintConfig:
    """How often to walk which part of the path.

    Parameters
    ----------
    n_resample
        How many times every window is sampled, at least 1: in between, the state is thinned back to the start of the
        window, so that imputed entries are drawn again beside the known ones.
    jump
        Steps in a window, at least 1. The first step has a window of its own, walked once: thinned back to p = 0,
        nothing would be left of it, and walking it again would harmonise nothing.
    """

    n_resample: int = 3
    jump: int = 5

    def __post_init__(self) -> None:
        check_whole(1, n_resample=self.n_resample, jump=self.jump)

    def windows(self, n_steps: int) -> Iterator[tuple[int, int, int]]:
        """First step, step after the last, and number of walks of every window."""
        yield 0, 1, 1
        for start in range(1, n_steps, self.jump):
            yield start, min(start + self.jump, n_steps), self.n_resample


@torch.no_grad()
def repaint(
    denoiser: DenoiserFn,
    context: Context,
    generator: RowGenerator,
    config: SamplerConfig | None = None,
    repaint_config: RepaintConfig | None = None,
) -> Tensor:
    """Draw integer counts for the noised entries, with known ones seen through thinning only.

    The denoiser is asked as for generation, all entries noised. After every step the known entries are overwritten by a
    thinning of their counts. Each of their molecules dies once and for all at a time drawn once, so that the thinned
    counts are one path: no molecule comes and goes as it would with fresh draws in every step.

    Parameters
    ----------
    denoiser, context, generator, config
        As for :func:`~countsdiff.core.sample`.
    repaint_config
        Windows.

    Returns
    -------
    Tensor
        Whole numbers on noised entries, zero elsewhere; shape ``(n_obs, n_vars)``.

    Raises
    ------
    TypeError, ValueError
        As :func:`~countsdiff.core.sample` does.
    """
    check_generator(generator, len(context.counts))
    config, repaint_config = config or SamplerConfig(), repaint_config or RepaintConfig()
    grid = config.survival_grid()
    nothing = torch.zeros_like(context.known)
    blank = replace(
        context, counts=torch.zeros_like(context.counts), known=nothing, noised=context.known | context.noised
    )

    def uniform() -> Tensor:
        return generator.uniform(*context.counts.shape[1:])

    x = torch.zeros_like(context.counts)
    largest: Tensor | None = None
    alive = {0: x}  # molecules of the known entries, by grid point; a window needs those of its own
    for start, stop, n_walks in repaint_config.windows(len(grid) - 1):
        for walk in range(n_walks):
            if walk > 0:
                thinned = binomial_quantile(uniform(), x, torch.full_like(x, grid[start] / grid[stop]))
                x = torch.where(context.known, alive[start], thinned)
            for k in range(start, stop):
                p_t, p_s = grid[k], grid[k + 1]
                intensity = denoiser(x, torch.full_like(x[:, :1], p_t), blank)
                if k == 0:
                    check_intensity(intensity, x)
                    largest = largest_mean(intensity)
                intensity = at_most(intensity, largest)
                x = reverse_step(x, intensity, p_t, p_s, blank.noised, generator, config)
                if k + 1 not in alive:
                    appear = torch.full_like(x, (p_s - p_t) / (1.0 - p_t))
                    alive[k + 1] = alive[k] + binomial_quantile(uniform(), context.counts - alive[k], appear)
                x = torch.where(context.known, alive[k + 1], x)
        alive = {stop: alive[stop]}
    return x * context.noised
