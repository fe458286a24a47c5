"""An averaged copy of a network, which is what predicts; the raw weights only train."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class ExponentialMovingAverage(nn.Module, Generic[ModuleT]):
    """Frozen copy of a module whose weights follow the original's by an exponential moving average.

    A submodule of its own rather than weights swapped in and out: it is saved, loaded and moved like any other module,
    and which weights predict is never in doubt.

    Parameters
    ----------
    module
        Module to follow.
    decay
        Decay per update once warmed up; before, (1 + n) / (10 + n) after n updates, so that the start is forgotten.
    """

    n_updates: Tensor

    def __init__(self, module: ModuleT, decay: float = 0.995):
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"The decay of a moving average lies in [0, 1); got {decay:g}.")
        self.decay = decay
        self.module: ModuleT = copy.deepcopy(module).eval().requires_grad_(False)
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, module: ModuleT) -> None:
        """Move the averaged weights towards those of `module`; buffers are copied."""
        warm = (1.0 + self.n_updates) / (10.0 + self.n_updates)
        step = 1.0 - torch.clamp(warm, max=self.decay)
        for averaged, weight in zip(self.module.parameters(), module.parameters(), strict=True):
            averaged.lerp_(weight, step)  # a tensor: the device need not tell the host
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)
        self.n_updates += 1

    def train(self, mode: bool = True) -> "ExponentialMovingAverage[ModuleT]":
        """Stay in evaluation mode: an average has nothing to drop out."""
        return super().train(False)
