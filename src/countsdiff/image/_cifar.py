"""CIFAR-10 from its original files: Python 2 pickles, of which nothing but arrays, bytes and containers is believed."""

import pickle
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from countsdiff.download import cache_dir, download
from countsdiff.files import check_digest

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
SHAPE = (3, 32, 32)
TRAIN = tuple(f"data_batch_{k}" for k in range(1, 6))
# as published beside the files
MD5 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}

_reconstruct = np.ndarray.__reduce__(np.empty(0))[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # where it was when the files were made
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, numbers, bytes and containers; a pickle may otherwise run any program."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return _ADMITTED[module, name]


def unpickle(file: BinaryIO) -> Any:
    """Read a pickle that holds arrays, numbers, bytes and containers only; text of Python 2 comes as bytes.

    Raises
    ------
    pickle.UnpicklingError
        If the pickle asks for anything else, before any of it is run.
    """
    return _ArrayUnpickler(file, encoding="bytes").load()


def read_batch(path: Path) -> dict[bytes, Any]:
    """Read one of the original files, checksum first.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is another file than the one published.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; CIFAR-10 comes as {URL}, to be unpacked.")
    check_digest(path, MD5[path.name], "md5")
    with path.open("rb") as file:
        try:
            batch = unpickle(file)
        except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as error:
            raise ValueError(f"{path}: this is no file of CIFAR-10, {error}.") from error
    if not isinstance(batch, dict):
        raise ValueError(f"{path}: this is no file of CIFAR-10, it holds a {type(batch).__name__}, not a dictionary.")
    return batch


def read_images(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Read the images of those training batches that are there, or of the test batch.

    Returns
    -------
    tuple
        Pixels ``(n_obs, 3, 32, 32)``, classes ``(n_obs,)``, and the names of the classes.
    """
    names = [n for n in TRAIN if (folder / n).is_file()] or TRAIN[:1] if split == "train" else ["test_batch"]
    batches = {name: read_batch(folder / name) for name in names}
    for name, batch in batches.items():
        data, labels = batch.get(b"data"), batch.get(b"labels")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels or ()), 3072):
            raise ValueError(f"{folder / name}: data and labels are not those of images of 32 × 32 pixels.")
    pixels = np.concatenate([batch[b"data"] for batch in batches.values()]).reshape(-1, *SHAPE)
    classes = np.concatenate([np.asarray(batch[b"labels"], dtype=np.int64) for batch in batches.values()])
    meta = read_batch(folder / "batches.meta")
    return pixels, classes, tuple(name.decode() for name in meta[b"label_names"])


def fetch() -> Path:
    """Download CIFAR-10 (170 MB) to the cache if it is not there, and return its folder.

    Raises
    ------
    ConnectionError
        If it cannot be downloaded.
    ValueError
        If the download has another checksum than the one published.
    """
    folder = cache_dir() / FOLDER
    if not all((folder / name).is_file() for name in MD5 if not name.endswith(".gz")):
        archive = cache_dir() / "cifar-10-python.tar.gz"
        if archive.is_file():
            check_digest(archive, MD5[archive.name], "md5")  # it may have been put there by hand
        else:
            download(URL, archive, lambda path: check_digest(path, MD5[archive.name], "md5"))
        with tarfile.open(archive) as tar:
            tar.extractall(cache_dir(), filter="data")
    return folder
