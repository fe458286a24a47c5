"""What the scripts of the image experiments share: trained and sampled in slices, so that a borrowed GPU suffices.

Every script does what comes next until its time is up, and goes on from there when it is started again.
"""

import argparse
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from countsdiff.files import atomic
from countsdiff.image.config import ImageConfig
from countsdiff.image.data import Images
from countsdiff.image.pixel_model import PixelModel
from countsdiff.image.reading import read_images
from countsdiff.image.training import train

sys.path.insert(0, str(Path(__file__).parents[1]))
from _markdown import markdown

RESULTS = Path(__file__).parents[1] / "results" / "images"
__all__ = ["RESULTS", "Clock", "OutOfTime", "device", "markdown", "parse", "parser", "read", "sampled", "trained"]
BLOCK = 1_000  # images sampled between two looks at the clock


class OutOfTime(Exception):
    """Raised when a slice is over; what has been done lies on the disk."""


class Clock:
    """Time left in a slice."""

    def __init__(self, minutes: float):
        self.end = time.monotonic() + 60.0 * minutes

    @property
    def minutes(self) -> float:
        """Minutes left; raises :class:`OutOfTime` if there are none."""
        left = (self.end - time.monotonic()) / 60.0
        if left <= 0.0:
            raise OutOfTime
        return left


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options of every script: data, runs, minutes, weights."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("COUNTSDIFF_DATA")
    result.add_argument("--data", type=Path, default=data and Path(data), help="folder that holds img/")
    result.add_argument("--runs", type=Path, required=True, help="folder for checkpoints and samples")
    result.add_argument("--minutes", type=float, default=8.0, help="length of the slice")
    result.add_argument("--inception", help="weights of the Inception network, or 'download'; for FID")
    result.add_argument("--n", type=int, default=50_000, help="images to draw for a score")
    result.add_argument("--batch-size", type=int, default=500, help="images sampled at a time")
    return result


def parse(result: argparse.ArgumentParser, needs_data: bool = True) -> argparse.Namespace:
    """Parse the options, and quiet what trains."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    arguments = result.parse_args()
    if needs_data and arguments.data is None:
        result.error("name the folder that holds img/ by --data or COUNTSDIFF_DATA")
    RESULTS.mkdir(parents=True, exist_ok=True)
    return arguments


def device() -> str:
    """What there is to compute on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def read(data: Path, config: ImageConfig, split: str) -> Images:
    """CIFAR-10, or CelebA where a configuration asks for its size."""
    celeba = "celeba" if (data / "img" / "celeba").is_dir() else "celeba_sample_2k.npz"
    folder = data / "img" / (celeba if config.size == 64 else "cifar-10-batches-py")
    images = read_images(folder, split, config.size)
    return images.of_classes(config.classes) if config.classes else images


def trained(config: ImageConfig, images: Images, folder: Path, clock: Clock) -> PixelModel:
    """Load a model, or train it as far as time allows."""
    if not (folder / "model.safetensors").is_file():
        model = train(images, config, folder, max_minutes=clock.minutes)
        if model is None:
            raise OutOfTime
    return PixelModel.load(folder, device())


def sampled(
    model: PixelModel, folder: Path, n: int, codes: np.ndarray | None, clock: Clock, batch_size: int, **options: float
) -> np.ndarray:
    """Draw `n` images, a block at a time; blocks that lie in `folder` are not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = []
    for start in range(0, n, BLOCK):
        file = folder / f"{start:06d}.npy"
        rows = np.arange(start, min(start + BLOCK, n))
        if not file.is_file():
            _ = clock.minutes
            chosen = None if codes is None else codes[rows % len(codes)]
            block = model.sample(len(rows), codes=chosen, first=start, batch_size=batch_size, **options)
            with atomic(file) as temporary:
                np.save(temporary, block)
        blocks.append(np.load(file))
    return np.concatenate(blocks)
