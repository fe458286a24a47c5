"""Options that several commands have, and what they all do with data, models and pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from countsdiff.arguments import MAX_SEED
from countsdiff.cli._io import InputError
from countsdiff.files import atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from countsdiff.image.data import Images
    from countsdiff.image.pixel_model import PixelModel

Model = Annotated[Path, Argument(metavar="MODEL", help="Folder of a trained model.")]
Data = Annotated[
    str,
    Option(
        metavar="PATH|cifar10",
        help="Images: a folder of CIFAR-10's files or in CelebA's layout, an .npz file, a folder of pictures; "
        "perhaps with folders train and test; cifar10 downloads it.",
    ),
]
Png = Annotated[Path, Option("--out", "-o", metavar="OUT.png", help="Picture to write.")]
Seed = Annotated[int, Option(min=0, max=MAX_SEED, help="Seed of everything drawn.")]
Steps = Annotated[int | None, Option(min=1, help="Reverse steps.", show_default="those of the model")]
Guidance = Annotated[float | None, Option(help="Strength of the classes.", show_default="that of the model")]
Attrition = Annotated[
    float | None, Option(min=0.0, max=1.0, help="Share η of the attrition.", show_default="that of the model")
]
Batch = Annotated[int, Option(min=1, help="Images at a time.")]
Device = Annotated[str, Option(help="cpu, cuda or mps.")]


def read(data: str, split: Any, config: Any) -> "Images":
    """Images of a split, those of the classes of a configuration."""
    from countsdiff.image.reading import read_images

    images = read_images(data, split, config.size)
    return images.of_classes(config.classes) if config.classes else images


def load(folder: Path, device: str) -> "PixelModel":
    """A trained model on a device."""
    from countsdiff.image.pixel_model import PixelModel

    try:
        return PixelModel.load(folder, device)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).splitlines()[0]
        raise InputError(f"{folder}: this model cannot be loaded on {device} ({cause}).") from error


def save(pixels: "NDArray[np.uint8]", out: Path, n_columns: int | None, zoom: int) -> None:
    """Write images side by side on one picture."""
    from countsdiff.image.grid import save_grid

    with atomic(out) as temporary:
        save_grid(pixels, temporary, n_columns, zoom)
