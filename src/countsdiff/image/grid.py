"""Many images on one picture."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_GAP, _PAPER = 1, 255  # pixels between images, and their colour


def image_grid(pixels: NDArray[np.uint8], n_columns: int | None = None) -> NDArray[np.uint8]:
    """Arrange images in rows.

    Parameters
    ----------
    pixels
        uint8, shape ``(n, n_channels, height, width)``, of one channel or three.
    n_columns
        Images in a row. Default: as many as make the picture about square.

    Returns
    -------
    numpy.ndarray
        uint8, shape ``(height, width, 3)``; white where there is no image.
    """
    n, n_channels, height, width = pixels.shape
    n_columns = n_columns or int(np.ceil(np.sqrt(n)))
    n_rows = -(-n // n_columns)
    tall, wide = height + _GAP, width + _GAP
    picture = np.full((n_rows * tall + _GAP, n_columns * wide + _GAP, 3), _PAPER, dtype=np.uint8)
    for k, image in enumerate(pixels):
        top, left = k // n_columns * tall + _GAP, k % n_columns * wide + _GAP
        picture[top : top + height, left : left + width] = image.transpose(1, 2, 0)  # one channel is grey
    return picture


def save_grid(pixels: NDArray[np.uint8], path: str | Path, n_columns: int | None = None, zoom: int = 1) -> None:
    """Write images as one PNG.

    Parameters
    ----------
    pixels, n_columns
        As for :func:`image_grid`.
    path
        File to write.
    zoom
        Width and height of a pixel in the picture.
    """
    from PIL import Image

    picture = image_grid(pixels, n_columns)
    Image.fromarray(picture.repeat(zoom, axis=0).repeat(zoom, axis=1)).save(path, format="PNG")
