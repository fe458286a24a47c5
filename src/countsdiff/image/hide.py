"""Which pixels to hide: in training, and from test images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def hide_pixels(
    shape: torch.Size, share_generated: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Hide all of some images; of the others scattered pixels in one half, a rectangle in the other.

    A pixel is hidden in all channels. Shares of scattered pixels are drawn evenly from [0, 1], corners of rectangles
    evenly over the image; at least one pixel is hidden.

    Parameters
    ----------
    shape
        Number of images, channels, height and width.
    share_generated
        Share of images of which everything is hidden.
    generator
        Source of randomness, on `device`.

    Returns
    -------
    Tensor
        Boolean, shape ``(n_obs, n_channels × height × width)``.
    """
    n_obs, n_channels, height, width = shape

    def uniform(*sizes: int) -> Tensor:
        return torch.rand(n_obs, *sizes, generator=generator, device=device)

    score = uniform(height, width)
    scattered = (score < uniform(1, 1)) | (score == score.amin(dim=(1, 2), keepdim=True))
    rows, columns = (_between(uniform(2), side, device) for side in (height, width))
    block = rows.unsqueeze(2) & columns.unsqueeze(1)
    hidden = torch.where(uniform(1, 1) < 0.5, scattered, block) | (uniform(1, 1) < share_generated)
    return hidden.unsqueeze(1).expand(-1, n_channels, -1, -1).flatten(1)


def _between(ends: Tensor, side: int, device: torch.device | str) -> Tensor:
    """Whether each of `side` places lies between two ends in [0, 1), both included."""
    place = torch.arange(side, device=device)
    first, last = (ends.sort(dim=1).values * side).long().split(1, dim=1)
    return (first <= place) & (place <= last)


def scattered(n: int, sides: tuple[int, int], share: float, seed: int) -> NDArray[np.bool_]:
    """Hide every pixel with probability `share`; shape ``(n, height, width)``."""
    return np.random.default_rng(seed).random((n, *sides)) < share


def central_block(n: int, sides: tuple[int, int]) -> NDArray[np.bool_]:
    """Hide the rectangle in the middle, half as high and as wide as the image; shape ``(n, height, width)``."""
    height, width = sides
    hidden = np.zeros((n, height, width), dtype=bool)
    hidden[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return hidden
