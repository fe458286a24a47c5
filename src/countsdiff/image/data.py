"""Images as counts: what is known of them, cutting them to size, turning them over."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGEST = 255  # photons of a white pixel


@dataclass(frozen=True)
class Images:
    """Images and what is known of each.

    Attributes
    ----------
    pixels
        Intensities 0 to 255, uint8, shape ``(n_obs, n_channels, height, width)``.
    codes
        Codes of the categorical covariates, int64, shape ``(n_obs, n_covariates)``; −1 for unknown.
    categories
        Names of the categories of every covariate.
    """

    pixels: NDArray[np.uint8]
    codes: NDArray[np.int64]
    categories: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise ValueError(
                "Images are uint8 of shape (number, channels, height, width); got "
                f"{self.pixels.dtype} of shape {self.pixels.shape}."
            )
        if self.pixels.shape[1] not in (1, 3):
            raise ValueError(f"Images have one channel, or three of colour; got {self.pixels.shape[1]}.")
        if self.codes.shape != (len(self.pixels), len(self.categories)):
            raise ValueError(
                f"{len(self.pixels)} images with {len(self.categories)} covariates need as many codes; got "
                f"{self.codes.shape}."
            )
        check_codes(self.codes, self.categories)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def take(self, rows: NDArray[np.integer] | slice) -> "Images":
        """Some of the images."""
        return replace(self, pixels=self.pixels[rows], codes=self.codes[rows])

    def of_classes(self, names: Sequence[str]) -> "Images":
        """Images of some classes, the categories of the first covariate, which are numbered anew in this order.

        Raises
        ------
        ValueError
            If there is no such class.
        """
        known = self.categories[0] if self.categories else ()
        for name in names:
            if name not in known:
                raise ValueError(f"There is no class {name!r}; the classes are {', '.join(known) or 'none'}.")
        number = np.full(len(known) + 1, -1)  # the last one, which −1 finds, of unknown
        number[[known.index(name) for name in names]] = np.arange(len(names))
        codes = self.codes.copy()
        codes[:, 0] = number[codes[:, 0]]
        wanted = codes[:, 0] >= 0
        return Images(self.pixels[wanted], codes[wanted], (tuple(names), *self.categories[1:]))

    def codes_as(self, categories: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """Codes by other numbers of the same categories, those of a model, by their names; −1 where nothing is known.

        Raises
        ------
        ValueError
            If there is another number of covariates, or a category that is not among those.
        """
        if not categories or not self.categories:
            return np.full((len(self), len(categories)), -1)
        if len(categories) != len(self.categories):
            raise ValueError(f"The model knows {len(categories)} covariates, the images have {len(self.categories)}.")
        codes = np.empty_like(self.codes)
        for column, (own, known) in enumerate(zip(self.categories, categories, strict=True)):
            if unknown := [name for name in own if name not in known]:
                raise ValueError(f"The model does not know {unknown[0]!r}; it knows {', '.join(known)}.")
            codes[:, column] = np.array([*(known.index(name) for name in own), -1])[self.codes[:, column]]
        return codes

    def shrink(self, size: int) -> "Images":
        """Make images smaller by a whole factor; a pixel is the rounded mean of those that it takes the place of.

        Raises
        ------
        ValueError
            If the images are not square, or their side is no multiple of `size`.
        """
        n, channels, height, width = self.pixels.shape
        if height != width or height % size != 0:
            raise ValueError(f"Images of {height} × {width} pixels do not shrink to {size} × {size} by a whole factor.")
        factor = height // size
        blocks = self.pixels.reshape(n, channels, size, factor, size, factor)
        return replace(self, pixels=np.rint(blocks.mean(axis=(3, 5), dtype=np.float32)).astype(np.uint8))


def check_codes(codes: NDArray[np.int64], categories: Sequence[Sequence[str]]) -> None:
    """Check that codes ``(n_obs, n_covariates)`` are numbers of categories, or −1 for unknown.

    Raises
    ------
    ValueError
        Naming the first image and covariate with another.
    """
    if codes.dtype.kind not in "iu":
        raise ValueError(f"codes are whole numbers; got {codes.dtype}.")
    n_known = np.array([len(names) for names in categories], dtype=np.int64)
    if (wrong := np.argwhere((codes < -1) | (codes >= n_known))).size:
        image, covariate = wrong[0]
        raise ValueError(
            f"codes lie between −1 and {n_known.tolist()} less 1; got {codes.min()} to {codes.max()}: image {image} "
            f"has {codes[image, covariate]} of covariate {covariate}."
        )


def flip(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Turn every image left to right with probability one half; shape ``(n_obs, n_channels, height, width)``."""
    turned = torch.rand(len(pixels), 1, 1, 1, generator=generator, device=pixels.device) < 0.5
    return torch.where(turned, pixels.flip(3), pixels)
