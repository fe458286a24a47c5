"""Images of data sets, files and folders."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from countsdiff.image import _cifar
from countsdiff.image.data import Images

Split = Literal["train", "test"]
_CELEBA_CROP = 178
_CELEBA_SPLITS = {"train": 0, "test": 2}  # 1 is for validation
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}
_PER_IMAGE = ("attributes", "labels", "partition")  # arrays of an .npz file


def read_images(path: str | Path, split: Split = "train", size: int | None = None) -> Images:
    """Read images of a data set by what lies at `path`.

    Parameters
    ----------
    path
        ``"cifar10"`` (downloaded to the cache), a folder of CIFAR-10's original files, a folder in CelebA's own layout
        (``img_align_celeba``, ``list_attr_celeba.txt``, ``list_eval_partition.txt``), an .npz file, or a folder of
        pictures (sub-folders are classes), or of two such folders, ``train`` and ``test``.
    split
        ``"train"`` or ``"test"``. Of data that know no split, see :func:`has_split`, all images are read for either.
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
        return read_folder(folder / split if has_split(folder) else folder, size)
    return images if size is None or images.shape[1:] == (size, size) else images.shrink(size)


def has_split(path: str | Path) -> bool:
    """Whether data say which of their images are for testing.

    Folders of pictures do if they consist of two, ``train`` and ``test``, and .npz files if they have a ``partition``.

    Parameters
    ----------
    path
        As for :func:`read_images`.
    """
    folder = Path(path)
    if folder.is_file():
        with _opened(folder) as arrays:
            return "partition" in arrays
    if str(path) == "cifar10" or any((folder / file).is_file() for file in ("list_attr_celeba.txt", "batches.meta")):
        return True
    return (folder / "train").is_dir() and (folder / "test").is_dir()


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
    with _opened(path) as file:
        arrays = dict(file)
    if "images" not in arrays:
        raise ValueError(f"{path}: there is no array 'images' among {', '.join(arrays) or 'none'}.")
    pixels = arrays["images"]
    if wrong := [name for name in _PER_IMAGE if name in arrays and np.shape(arrays[name])[:1] != pixels.shape[:1]]:
        raise ValueError(
            f"{path}: {wrong[0]} has the shape {arrays[wrong[0]].shape}, images {pixels.shape}; one for each is needed."
        )
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
    """Read a folder of pictures, in colour; with a `size`, their centre squares, resized. Sub-folders are classes.

    Pictures are turned as their EXIF data say; what is transparent is white.

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


@contextmanager
def _opened(path: str | Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Arrays of an .npz file by name, each read when it is looked at."""
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: this is no .npz file of arrays, {error}.") from error


def _read_picture(file: Path, size: int | None, crop: int | None = None) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            if opened.mode[0] in "IF":
                raise ValueError(f"{file}: its pixels have more than 8 bits ({opened.mode}); scale them to 0 to 255.")
            upright = ImageOps.exif_transpose(opened)
            if upright.has_transparency_data:
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright.convert("RGBA"))
            picture = upright.convert("RGB")
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
