"""Images as counts: reading them, cutting them to size, turning them over."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from countsdiff.image import _cifar

Split = Literal["train", "test"]
LARGEST = 255  # photons of a white pixel
_CELEBA_CROP = 178
_CELEBA_SPLITS = {"train": 0, "test": 2}  # 1 is for validation
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}


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
    n_known = np.array([len(names) for names in categories], dtype=np.int64)
    if (wrong := np.argwhere((codes < -1) | (codes >= n_known))).size:
        image, covariate = wrong[0]
        raise ValueError(
            f"codes lie between −1 and {n_known.tolist()} less 1; got {codes.min()} to {codes.max()}: image {image} "
            f"has {codes[image, covariate]} of covariate {covariate}."
        )


def read_images(path: str | Path, split: Split = "train", size: int | None = None) -> Images:
    """Read images of a data set by what lies at `path`.

    Parameters
    ----------
    path
        ``"cifar10"`` (downloaded to the cache), a folder of CIFAR-10's original files, a folder in CelebA's own layout
        (``img_align_celeba``, ``list_attr_celeba.txt``, ``list_eval_partition.txt``), an .npz file, or a plain folder
        of pictures (sub-folders are classes). Plain folders know no split.
    split
        ``"train"`` or ``"test"``.
    size
        Side to shrink to, in pixels; CelebA is cropped to 178 × 178 and resized to it (default 64).

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`, or no images.
    ValueError
        If what is there are no images, or not those that were published.
    """
    folder = _cifar.fetch() if str(path) == "cifar10" else Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: there is no such file or folder.")
    if (folder / "list_attr_celeba.txt").is_file():
        return read_celeba(folder, split, size or 64)
    if folder.is_file():
        images = read_npz(folder, split)
    elif (folder / "batches.meta").is_file():
        images = read_cifar10(folder, split)
    else:
        return read_folder(folder, size)
    return images if size in (None, images.shape[1]) else images.shrink(size)


def read_cifar10(folder: str | Path, split: Split = "train") -> Images:
    """Read CIFAR-10's original files, whose checksums are verified: all training batches that are there, or the test's.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not the one published.
    """
    pixels, classes, names = _cifar.read_images(Path(folder), split)
    return Images(pixels, classes[:, None], (names,))


def read_celeba(folder: str | Path, split: Split = "train", size: int = 64) -> Images:
    """Read aligned CelebA in its own layout: the central 178 × 178 pixels, resized; 40 attributes, absent or present.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the tables do not fit each other.
    """
    folder = Path(folder)
    n_listed, header, *rows = (folder / "list_attr_celeba.txt").read_text().splitlines()
    names = header.split()
    attributes = {name: values for name, *values in map(str.split, rows)}
    if len(attributes) != int(n_listed) or any(len(values) != len(names) for values in attributes.values()):
        raise ValueError(f"{folder / 'list_attr_celeba.txt'}: not {n_listed} images with {len(names)} attributes each.")
    partition = dict(line.split() for line in (folder / "list_eval_partition.txt").read_text().splitlines())
    wanted = [name for name, part in partition.items() if int(part) == _CELEBA_SPLITS[split]]
    missing = [name for name in wanted if name not in attributes]
    if missing:
        raise ValueError(f"{folder / 'list_attr_celeba.txt'}: there are no attributes of {missing[0]}.")
    pixels = np.stack([_read_picture(folder / "img_align_celeba" / name, size, _CELEBA_CROP) for name in wanted])
    present = np.array([[value == "1" for value in attributes[name]] for name in wanted], dtype=np.int64)
    return Images(pixels, present, tuple((f"not {name}", name) for name in names))


def read_npz(path: str | Path, split: Split = "train") -> Images:
    """Read an .npz file with ``images`` and optional ``attributes`` of −1 or 1 or ``labels``, and ``partition``.

    Images may have their channels first or last; `partition` is 0 for training, 1 or 2 for testing.

    Raises
    ------
    ValueError
        If the file is no .npz file, or holds no such arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: this is no .npz file of arrays, {error}.") from error
    if "images" not in arrays:
        raise ValueError(f"{path}: there is no array 'images' among {', '.join(arrays) or 'none'}.")
    pixels = arrays["images"]
    if pixels.ndim == 4 and pixels.shape[1] > 4 >= pixels.shape[3]:
        pixels = pixels.transpose(0, 3, 1, 2)
    codes = np.empty((len(pixels), 0), dtype=np.int64)
    categories: tuple[tuple[str, ...], ...] = ()
    if "attributes" in arrays:
        codes = (arrays["attributes"] > 0).astype(np.int64)
        if codes.ndim != 2:
            raise ValueError(f"{path}: attributes have the shape (number, attributes); got {codes.shape}.")
        found = arrays.get("attribute_names", np.arange(codes.shape[1])).astype(str)
        categories = tuple((f"not {name}", str(name)) for name in found)
    elif "labels" in arrays:
        found, codes = np.unique(arrays["labels"], return_inverse=True)
        codes, categories = codes.reshape(-1, 1).astype(np.int64), (tuple(map(str, found)),)
    images = Images(np.ascontiguousarray(pixels), codes, categories)
    if "partition" not in arrays:
        return images
    return images.take((arrays["partition"] == 0) == (split == "train"))


def read_folder(folder: str | Path, size: int | None = None) -> Images:
    """Read a folder of pictures, in colour: centre squares, resized to `size`. Sub-folders are classes.

    Raises
    ------
    FileNotFoundError
        If there are no pictures.
    ValueError
        If a file is no picture, or the pictures differ in size and no `size` is given.
    """
    folder = Path(folder)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder}: there are no pictures ({', '.join(sorted(_SUFFIXES))}) in this folder.")
    pictures = [_read_picture(file, size) for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise ValueError(f"{file}: this picture has another size than {files[0].name}; give a size for all.")
    parents = [file.relative_to(folder).parts[0] if file.parent != folder else "" for file in files]
    names = sorted(set(parents))
    if names == [""]:
        return Images(np.stack(pictures), np.empty((len(files), 0), dtype=np.int64))
    codes = np.array([[names.index(parent)] for parent in parents], dtype=np.int64)
    return Images(np.stack(pictures), codes, (tuple(names),))


def flip(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Turn every image left to right with probability one half; shape ``(n_obs, n_channels, height, width)``."""
    turned = torch.rand(len(pixels), 1, 1, 1, generator=generator, device=pixels.device) < 0.5
    return torch.where(turned, pixels.flip(3), pixels)


def _read_picture(file: Path, size: int | None, crop: int | None = None) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            if opened.mode[0] in "IF":
                raise ValueError(f"{file}: its pixels have more than 8 bits ({opened.mode}); scale them to 0 to 255.")
            picture = opened.convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError(f"{file}: this file is no picture.") from error
    except OSError as error:
        raise ValueError(f"{file}: this picture cannot be read, {error}.") from error
    width, height = picture.size
    side = min(crop or min(width, height), width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if size is not None or crop is not None:
        picture = picture.crop((left, top, left + side, top + side))
        picture = picture.resize((size or side, size or side), Image.Resampling.BILINEAR, reducing_gap=None)
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)
