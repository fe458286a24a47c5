"""Small images, a tiny network, and a denoiser that knows the truth."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from countsdiff.core import Intensity
from countsdiff.image.config import ImageConfig
from countsdiff.image.data import Images
from countsdiff.image.pixel_model import PixelModel

TINY = ImageConfig(
    head="bounded",
    widths=(8, 16),
    depth=1,
    attention=(),
    n_groups=4,
    share_empty=0.2,
    share_one_pass=0.2,
    share_generated=0.5,
    n_steps=12,
    batch_size=8,
    lr=2e-3,
    warmup=4,
    save_every=4,
    ema_decay=0.9,
    sample_steps=6,
    attrition=0.0,
)


@pytest.fixture
def tiny() -> ImageConfig:
    return TINY


@pytest.fixture
def images() -> Images:
    """Forty images of 8 × 8 pixels of two classes, dark and bright."""
    rng = np.random.default_rng(0)
    codes = np.arange(40).reshape(-1, 1) % 2
    level = np.where(codes == 0, 40, 200).reshape(-1, 1, 1, 1)
    pixels = (level + rng.integers(-30, 31, (40, 3, 8, 8))).astype(np.uint8)
    return Images(pixels, codes.astype(np.int64), (("dark", "bright"),))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the original images, which are no part of the repository."""
    folder = Path(os.environ.get("COUNTSDIFF_DATA") or Path(__file__).parents[3] / "shared" / "data") / "img"
    if not folder.is_dir():
        pytest.skip("no data: set COUNTSDIFF_DATA to the folder that holds img/cifar-10-batches-py")
    return folder


class Oracle(nn.Module):
    """Knows the only image there is: λ = (x_0 − x_t) / (1 − p)."""

    def __init__(self, truth: np.ndarray):
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(truth.reshape(1, -1)).float())

    def forward(self, x_t, p, context) -> Intensity:
        return Intensity((self.mean - x_t).clamp(min=0.0) / (1.0 - p))


@pytest.fixture
def oracle(tiny):
    """Factory of models that know an image, of which 0 and 255 are pixels too."""

    def make(**options) -> tuple[PixelModel, np.ndarray]:
        truth = np.random.default_rng(1).integers(0, 256, (3, 8, 8)).astype(np.uint8)
        truth[:, 0, 0], truth[:, 0, 1] = 0, 255
        config = tiny.with_options(births="stochastic", **options)
        return PixelModel(Oracle(truth), config, (3, 8, 8), ()), truth

    return make
