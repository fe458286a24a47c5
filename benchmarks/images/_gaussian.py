"""Gaussian diffusion of pixels with the network and the training of a configuration, as a rival at filling in.

Conditional as CSDI (Tashiro et al. 2021): hidden pixels are noised, known ones are conditions. Noise follows a cosine
schedule; the network predicts the velocity (Salimans & Ho 2022).
"""

import math
from pathlib import Path

import numpy as np
import torch
from _common import Clock
from torch import Tensor

from countsdiff.core import ExponentialMovingAverage
from countsdiff.files import atomic
from countsdiff.image.config import ImageConfig
from countsdiff.image.data import Images, flip
from countsdiff.image.hide import hide_pixels
from countsdiff.image.model import ImageDiffusion, channel_statistics
from countsdiff.image.training import _StepImages
from countsdiff.nn import UNet
from countsdiff.nn.unet import noise_time

_MIDDLE, _SCALE = 127.5, 64.0  # of pixels; they are then about of mean 0 and variance 1


class GaussianPixels:
    """A trained or half-trained model.

    Parameters
    ----------
    config
        Network and training, which are those of :class:`~countsdiff.image.model.ImageDiffusion`, but that half of the
        images are filled in: it has no linear estimate to start from, and fills in much worse if a tenth is.
    images
        Training images.
    folder
        Where the checkpoint goes.
    """

    def __init__(self, config: ImageConfig, images: Images, folder: Path):
        config = config.with_options(linear=False, share_generated=0.5, share_empty=0.15)
        self.config, self.images, self.file = config, images, folder / "gaussian.pt"
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        n_categories = [len(names) for names in images.categories]
        counting = ImageDiffusion(config, images.shape, n_categories, *channel_statistics(images))
        self.network: UNet = counting.denoiser.backbone  # built alike to the last weight
        self.averaged = ExponentialMovingAverage(self.network, config.ema_decay)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.lr)
        self.factor = counting.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
        self.step = 0
        if self.file.is_file():
            saved = torch.load(self.file, weights_only=True)
            self.step = saved["step"]
            for name in ("network", "averaged", "optimiser"):
                getattr(self, name).load_state_dict(saved[name])

    def train(self, clock: Clock) -> None:
        """Train to the end, or until time is up."""
        batches, config = _StepImages(self.images, self.config, 0, start=0), self.config
        while self.step < config.n_steps:
            generator = torch.Generator().manual_seed(self.step)
            torch.manual_seed(self.step)
            pixels, codes = batches[self.step]
            loss = self._loss(flip(pixels, generator), codes, generator)
            self.optimiser.param_groups[0]["lr"] = config.lr * self.factor(self.step)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
            self.optimiser.step()
            self.averaged.update(self.network)
            self.step += 1
            if self.step % config.save_every == 0:
                state = {name: getattr(self, name).state_dict() for name in ("network", "averaged", "optimiser")}
                with atomic(self.file) as temporary:
                    torch.save(state | {"step": self.step}, temporary)
                _ = clock.minutes

    @torch.no_grad()
    def inpaint(self, pixels: np.ndarray, hidden: np.ndarray, codes: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Expected intensities of hidden pixels: at full noise the velocity is minus the mean, given what is known."""
        filled = []
        for start in range(0, len(pixels), batch_size):
            rows = slice(start, start + batch_size)
            values = (torch.from_numpy(pixels[rows]).float() - _MIDDLE) / _SCALE
            mask = torch.from_numpy(hidden[rows])[:, None].expand_as(values)
            noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(start))
            angle = torch.full((len(values), 1, 1, 1), 0.5 * math.pi)
            chosen = torch.from_numpy(codes[rows])
            mean = -self._velocity(self.averaged.module, torch.where(mask, noise, values), mask, angle, chosen)
            filled.append(torch.where(mask, mean * _SCALE + _MIDDLE, values * _SCALE + _MIDDLE).clamp(0, 255))
        return torch.cat(filled).numpy()

    def _loss(self, pixels: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
        values = (pixels.float() - _MIDDLE) / _SCALE
        hidden = hide_pixels(values.shape, self.config.share_generated, generator).view(values.shape)
        alone = torch.rand(len(values), 1, generator=generator) < self.config.share_unconditional
        angle = 0.5 * math.pi * torch.rand(len(values), 1, 1, 1, generator=generator)
        # as many at full noise, where means are asked for, as the counting model has at p = 0
        config, generated = self.config, hidden.all((1, 2, 3), keepdim=True)
        share = torch.where(generated, config.share_empty, config.share_one_pass)
        full = torch.rand(len(values), 1, 1, 1, generator=generator) < share
        angle = torch.where(full, 0.5 * math.pi, angle)
        noise = torch.randn(values.shape, generator=generator)
        noised = torch.where(hidden, angle.cos() * values + angle.sin() * noise, values)
        velocity = angle.cos() * noise - angle.sin() * values
        predicted = self._velocity(self.network, noised, hidden, angle, torch.where(alone, -1, codes))
        return ((predicted - velocity).square() * hidden).sum() / hidden.sum()

    @staticmethod
    def _velocity(network: UNet, values: Tensor, hidden: Tensor, angle: Tensor, codes: Tensor) -> Tensor:
        p = angle.flatten().cos().square().clamp(0.0, 1.0)
        exposure = torch.where(hidden, p.view(-1, 1, 1, 1), 1.0)
        seen = torch.cat([values, exposure], dim=1).contiguous(memory_format=torch.channels_last)
        summary = torch.stack([torch.zeros_like(p), exposure.mean((1, 2, 3))], dim=1)
        features = network.covariates(codes, torch.empty(len(values), 0))
        condition = network.condition(torch.cat([summary, features], dim=1))
        (h,) = network.unet(seen, noise_time(p), class_labels=condition, return_dict=False)
        return network.log_mean(h)
