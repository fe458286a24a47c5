"""The Lightning module between minibatches of pixels and the core."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from countsdiff.core.denoiser import Denoiser
from countsdiff.core.ema import ExponentialMovingAverage
from countsdiff.core.heads import BoundedHead, get_head
from countsdiff.core.interfaces import Context
from countsdiff.core.jump import PoissonRandomisation
from countsdiff.core.loss import NoiseLevels, bregman_loss
from countsdiff.core.process import noise
from countsdiff.image.config import ImageConfig
from countsdiff.image.data import LARGEST, Images, flip
from countsdiff.image.hide import hide_pixels
from countsdiff.nn import LinearEstimate, UNet
from countsdiff.nn.embed import zeroed

Batch = tuple[Tensor, Tensor]
"""Pixels, uint8 ``(n_obs, n_channels, height, width)``, and codes of the covariates."""


class ImageDiffusion(pl.LightningModule):
    """Denoiser, its moving average, and the loss with masked-entry conditioning.

    Everything that a step draws comes from a stream of its own, keyed by seed and step: training that was broken off
    and resumed is the same as training that was not.

    Parameters
    ----------
    config
        Settings.
    shape
        Channels, height and width.
    n_categories
        Number of categories of each covariate; empty for a model without.
    mean, dispersion
        Mean intensity and gamma shape of every channel, see :func:`channel_statistics`.
    estimate
        Linear estimate to start from, if the settings ask for one, see :func:`linear_estimate`.
    seed
        Seed of all that is drawn in training.
    """

    def __init__(
        self,
        config: ImageConfig,
        shape: tuple[int, int, int],
        n_categories: Sequence[int],
        mean: Tensor,
        dispersion: Tensor,
        estimate: LinearEstimate | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.config, self.seed = config, seed
        self.denoiser = build_denoiser(config, shape, n_categories, mean, dispersion, estimate)
        self.averaged = ExponentialMovingAverage(self.denoiser, config.ema_decay)
        self.difficulty = Difficulty() if config.balanced else None
        self.times = config.times()
        self.times_known = replace(self.times, share_empty=config.share_one_pass)

    def on_fit_start(self) -> None:
        """Compile the U-Net if wanted: here, since the copy of the averaged weights is made by now."""
        if self.config.compile:
            self.denoiser.backbone.compile()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One minibatch, all random numbers of which follow from the number of the step."""
        words = np.random.SeedSequence([self.seed, self.global_step]).generate_state(2, np.uint64)
        of_noise, of_dropout = (int(word >> 1) for word in words)
        torch.manual_seed(of_dropout)  # which draws from torch's own stream
        return self.loss(batch, torch.Generator(self.device).manual_seed(of_noise))

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Hide pixels, thin them, and score the denoiser: mean weighted Bregman divergence per hidden entry.

        If images are balanced, that is divided by what was to be expected, whose logarithm is added.
        """
        pixels, codes = batch
        if self.config.flip:
            pixels = flip(pixels, generator)
        counts = to_counts(pixels, self.config.jump_scale, generator)
        hidden = hide_pixels(pixels.shape, self.config.share_generated, generator, pixels.device)
        alone = torch.rand(len(counts), 1, generator=generator, device=counts.device) < self.config.share_unconditional
        context = Context(
            counts=counts * ~hidden,
            known=~hidden,
            noised=hidden,
            categories=torch.where(alone, -1, codes),
            continuous=torch.empty(len(counts), 0, device=counts.device),
        )
        levels = self._levels(hidden.all(1, keepdim=True), generator)
        noised = noise(counts, levels.p, hidden, generator)
        intensity = self.denoiser(noised.x_t, levels.p, context)
        lost = noised.lost
        # less its least value, which no weight of the network touches: what is left is small and goes to zero
        divergence = bregman_loss(intensity.mean * (1.0 - levels.p), lost) - (lost - torch.xlogy(lost, lost))
        losses = (levels.weight * hidden * divergence).sum(1) / hidden.sum(1)
        if self.difficulty is not None:
            expected = self.difficulty(levels.p, context.known)
            losses = losses * torch.exp(-expected) + expected
        return losses.mean()

    def _levels(self, generated: Tensor, generator: torch.Generator) -> NoiseLevels:
        """Noise levels of images that are generated, and of those that are filled in, mostly in one pass."""
        unknown, known = (
            times(len(generated), generator, generated.device) for times in (self.times, self.times_known)
        )
        return NoiseLevels(
            p=torch.where(generated, unknown.p, known.p), weight=torch.where(generated, unknown.weight, known.weight)
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Let the averaged weights follow every step, before a checkpoint is written."""
        super().optimizer_step(*args, **kwargs)
        self.averaged.update(self.denoiser)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam, warmed up; then a steady learning rate, or half a cosine down to zero."""
        config = self.config
        # not fused: that pairs weights with channels last with restored moments, whose channels come first, as they lie
        groups: list[dict[str, Any]] = [{"params": self.denoiser.parameters()}]
        if self.difficulty is not None:
            # first: until it knows, images do not count alike
            groups.append({"params": self.difficulty.parameters(), "lr": 5.0 * config.lr})
        optimiser = torch.optim.Adam(groups, lr=config.lr)

        def factor(step: int) -> float:
            if step < config.warmup:
                return (step + 1) / config.warmup
            if not config.decay:
                return 1.0
            return 0.5 + 0.5 * float(np.cos(np.pi * (step - config.warmup) / max(1, config.n_steps - config.warmup)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Difficulty(nn.Module):
    """Logarithm of the loss to be expected of an image, by its noise level and the share of its pixels that is known.

    With losses ℓ e^−u + u it is the u that makes them smallest, and each of them is about 1 + u: gradients of images
    that little is known of, and of those almost complete, are then of one size.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), zeroed(nn.Linear(width, 1))
        )

    def forward(self, p: Tensor, known: Tensor) -> Tensor:
        """Expected log loss, shape ``(n_obs,)``, of survival probabilities ``(n_obs, 1)`` and known entries."""
        noise_level = torch.asin(p.sqrt()) * (2.0 / math.pi)
        seen = torch.cat([noise_level, known.to(p.dtype).mean(1, keepdim=True)], dim=1)
        expected: Tensor = self.layers(seen).squeeze(1).float()
        return expected


def build_denoiser(
    config: ImageConfig,
    shape: tuple[int, int, int],
    n_categories: Sequence[int],
    mean: Tensor,
    dispersion: Tensor,
    estimate: LinearEstimate | None = None,
) -> Denoiser:
    """Build the denoiser of a configuration; `mean` and `dispersion` are those of the channels."""
    network = UNet(
        shape,
        n_categories,
        widths=config.widths,
        depth=config.depth,
        attention=config.attention,
        dropout=config.dropout,
        n_groups=config.n_groups,
        estimate=estimate is not None,
    )
    area = shape[1] * shape[2]
    mean = (config.jump_scale or 1.0) * mean.repeat_interleave(area)
    return Denoiser(
        network,
        mean,
        dispersion.repeat_interleave(area),
        BoundedHead(config.ceiling) if config.head == "bounded" else get_head(config.head, len(mean)),
        size_factors=False,
        estimate=estimate,
    )


def channel_statistics(images: Images) -> tuple[Tensor, Tensor]:
    """Mean intensity of every channel and, by moments, the shape r of its gamma law: variance mean + mean² / r."""
    value, n_channels = np.arange(LARGEST + 1), images.pixels.shape[1]
    how_often = np.zeros((n_channels, LARGEST + 1))
    for image in images.pixels:
        for channel, seen in zip(image, how_often, strict=True):
            seen += np.bincount(channel.ravel(), minlength=LARGEST + 1)
    share = how_often / how_often.sum(axis=1, keepdims=True)
    mean = share @ value
    variance = (share * np.square(value - mean[:, None])).sum(axis=1)
    mean = mean.clip(min=0.1)
    dispersion = (mean**2 / (variance - mean).clip(min=1e-6)).clip(0.05, 20.0)
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(dispersion, dtype=torch.float32)


def linear_estimate(images: Images, config: ImageConfig) -> LinearEstimate | None:
    """Means and covariances of the pixels of training images, if the settings of a model ask for them."""
    if not config.linear:
        return None

    def blocks() -> Iterator[Tensor]:
        for start in range(0, len(images), 1024):
            pixels = torch.from_numpy(images.pixels[start : start + 1024])
            yield pixels.flatten(1)
            if config.flip:
                yield pixels.flip(3).flatten(1)

    return LinearEstimate.fit(blocks())


def to_counts(pixels: Tensor, jump_scale: float | None, generator: torch.Generator | None = None) -> Tensor:
    """Pixels as the core knows them: whole numbers in float32, shape ``(n_obs, n_vars)``."""
    counts = pixels.flatten(1).to(torch.float32)
    return counts if jump_scale is None else PoissonRandomisation(jump_scale).counts(counts, generator)
