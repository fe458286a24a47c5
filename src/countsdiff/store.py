"""AnnData on disk, in .h5ad files and zarr stores: opened without reading its matrices, given layers block by block."""

import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import h5py
import numpy as np
import zarr
from anndata import AnnData
from scipy import sparse

from countsdiff.files import check_apart, sync
from countsdiff.layers import outdated_layers

__all__ = ["open_store"]

_SPARSE_CHUNK = 2**17  # entries


def open_store(path: str | Path) -> AnnData:
    """Open an .h5ad file or a zarr store; ``X`` and the layers stay on disk.

    Parameters
    ----------
    path
        File, or folder of a zarr store.

    Returns
    -------
    AnnData
        With ``obs``, ``var``, the records of countsdiff in ``uns``, ``X`` and ``layers``, of which the last two take no
        memory. A matrix is read where it is indexed, by rows: the model trains on such data and imputes them as any
        other.

    Raises
    ------
    ValueError
        If there is no such store, or it is damaged.

    Examples
    --------
    >>> adata = countsdiff.store.open_store("atlas.h5ad")
    >>> model = CountsDiffImputer(adata)
    >>> model.train()
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder.")
    group: Any = None
    try:
        group = _open_zarr(path, "r") if path.is_dir() else h5py.File(path, "r")
        layers = {name: _lazy(group["layers"][name]) for name in group["layers"]} if "layers" in group else {}
        return AnnData(
            _lazy(group["X"]) if "X" in group else None,
            obs=ad.io.read_elem(group["obs"]),
            var=ad.io.read_elem(group["var"]),
            layers=layers,
            uns={"countsdiff": ad.io.read_elem(group["uns/countsdiff"])} if "uns/countsdiff" in group else None,
        )
    except Exception as error:  # a damaged store makes the libraries that read it raise anything
        if isinstance(group, h5py.File):
            group.close()  # or nobody could write it again while the error is looked at
        raise ValueError(
            f"{path}: this is no AnnData store, or a damaged one ({cause_of(error)}); write it again."
        ) from error


def cause_of(error: Exception) -> str:
    """What is wrong with a file, in one line, by what was raised when it was read."""
    return "it is truncated" if "truncated" in str(error) else " ".join(str(error).split()) or "it is damaged"


def check_stored_sparse(group: Any) -> None:
    """Check that a group of a store can be the sparse matrix it says it is, before it is read.

    Raises
    ------
    ValueError
        If its parts are of the wrong type or shape: libraries would fill memory with numbers that are not there.
    """
    data, indices, pointers = (group[name] for name in ("data", "indices", "indptr"))
    if any(part.dtype.kind not in "iu" for part in (indices, pointers)):
        raise ValueError(f"indices of the sparse matrix {group.name} are no whole numbers")
    if any(part.ndim != 1 for part in (data, indices, pointers)):
        raise ValueError(f"parts of the sparse matrix {group.name} are no rows of numbers")
    if data.shape != indices.shape:
        raise ValueError(f"the sparse matrix {group.name} has {data.shape[0]} values and {indices.shape[0]} indices")


def add_layers(path: Path, blocks: Iterable[Mapping[str, Any]], n_obs: int) -> None:
    """Add layers to a store, block of rows by block of rows; layers of these names that the store has go.

    Parameters
    ----------
    path
        Store to write to.
    blocks
        Consecutive rows of every layer by its name, all CSR or all dense.
    n_obs
        Number of rows that all blocks have together.
    """
    with _to_change(path) as group:
        layers = group.require_group("layers")
        start = 0
        for block in blocks:
            for name, rows in block.items():
                if start == 0:
                    _create(layers, name, rows, n_obs)
                elif sparse.issparse(rows):
                    ad.io.sparse_dataset(layers[name]).append(rows)
                if not sparse.issparse(rows):
                    layers[name][start : start + len(rows)] = rows
            start += next(iter(block.values())).shape[0]


def add_record(path: Path, key: str, record: Mapping[str, Any]) -> None:
    """Write where a layer comes from to ``uns["countsdiff"]`` of a store."""
    with _to_change(path) as group:
        if "uns" not in group:
            ad.io.write_elem(group, "uns", {})
        known = ad.io.read_elem(group["uns/countsdiff"]) if "uns/countsdiff" in group else {}
        for name in outdated_layers(known, key, record):
            if name in group["layers"]:
                del group["layers"][name]
        ad.io.write_elem(group["uns"], "countsdiff", {**known, key: dict(record)})


@contextmanager
def hdf5_file(path: Path, mode: Literal["r+", "w"]) -> Iterator[h5py.File]:
    """Open an HDF5 file to write to; what went wrong with writing is raised when it is closed.

    HDF5 cannot give up: after a write that failed it keeps what it has not written, cannot close the file, prints
    tracebacks, and crashes the process at its end.

    Raises
    ------
    OSError
        If the disk is full, or writing failed for another reason.
    """
    with _Forgiving(path, "w+" if mode == "w" else mode) as raw:
        try:
            with h5py.File(raw, mode) as file:
                yield file
        finally:
            if raw.failure is not None:
                raw.failure.filename = str(path)
                raise raw.failure


def check_target(target: Path, source: Path, *kept: Path) -> None:
    """Check that a store can be written in the place of what is there, without harm.

    Parameters
    ----------
    target
        What is to be written.
    source
        What is read: neither may lie in the other.
    *kept
        What has to stay besides: it may not lie in the target.

    Raises
    ------
    ValueError
        If there would be harm, or what is there is no store of that kind, which nobody wants to lose.
    """
    check_apart(target, source)
    for path in (source, *kept):
        if path.resolve().is_relative_to(target.resolve()):
            raise ValueError(f"{target}: {path} lies in it, and would be lost; choose another place.")
    if target.suffix == ".zarr" and target.exists() and not _is_store(target):
        raise ValueError(f"{target}: this is no AnnData store, and would be lost; choose another name.")
    if target.suffix != ".zarr" and target.is_dir():
        raise ValueError(f"{target}: this is a folder; name a file to write.")


def _is_store(path: Path) -> bool:
    """Whether a folder is empty, or a zarr store of AnnData."""
    if not path.is_dir():
        return False
    if not any(path.iterdir()):
        return True
    try:
        return bool(_open_zarr(path, "r").attrs.get("encoding-type") == "anndata")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def copy_store(source: Path, target: Path) -> None:
    """Copy a store, in place of what is there."""
    remove_store(target)
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    for folder, _, names in os.walk(source, onerror=_raise, followlinks=True):
        to = target / Path(folder).relative_to(source)
        to.mkdir()  # not shutil.copytree: a copy of what may not be written could not be, either
        for name in names:
            shutil.copyfile(Path(folder, name), to / name)


def _raise(error: OSError) -> None:
    raise error


def remove_store(path: Path) -> None:
    """Delete a store, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_store(source: Path, target: Path) -> None:
    """Move a store to where another may be, which stays until the new one is complete."""
    sync(source)
    if target.is_dir():  # folders cannot be replaced in one step
        old = source.with_name("replaced")
        remove_store(old)
        os.replace(target, old)
        os.replace(source, target)
        remove_store(old)
    else:
        os.replace(source, target)


def store_size(path: Path) -> int:
    """Bytes that a store takes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _open_zarr(path: Path, mode: Literal["r", "r+"]) -> zarr.Group:
    return zarr.open_group(path, mode=mode, use_consolidated=False)  # which would not show what is being written


@contextmanager
def _to_change(path: Path) -> Iterator[Any]:
    if path.is_dir():
        group = _open_zarr(path, "r+")
        yield group
        zarr.consolidate_metadata(group.store)
    else:
        with hdf5_file(path, "r+") as file:
            yield file


class _Forgiving(io.FileIO):
    """A file that keeps the first failure to write for later, and drops what would be written after it."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        left = memoryview(data)
        while self.failure is None and len(left) > 0:
            try:
                left = left[super().write(left) :]  # of a large piece, or on a disk almost full, a part is written
            except OSError as error:
                self.failure = error
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        if self.failure is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.failure = error
        return size or 0

    def readinto(self, buffer: Any, /) -> int:
        n_read = super().readinto(buffer)
        return n_read if self.failure is None else len(buffer)  # of what was dropped nothing is there


def _lazy(element: Any) -> Any:
    if isinstance(element, h5py.Dataset | zarr.Array):
        return element
    check_stored_sparse(element)
    return ad.io.sparse_dataset(element)


def _create(layers: Any, name: str, rows: Any, n_obs: int) -> None:
    """Write the first rows of a layer, CSR, or make room for all of a dense one."""
    if sparse.issparse(rows):
        # counted in 64 bits: atlases have more entries than 32 can tell apart
        settings: dict[str, Any] = {"indptr_dtype": np.dtype(np.int64)}
        if isinstance(layers, zarr.Group):  # chunks are files, and would have the size of the first block, be it empty
            settings["chunks"] = (_SPARSE_CHUNK,)
        ad.io.write_elem(layers, name, rows, dataset_kwargs=settings)
        return
    if name in layers:
        del layers[name]
    create = layers.create_dataset if isinstance(layers, h5py.Group) else layers.create_array
    array = create(name, shape=(n_obs, rows.shape[1]), dtype=rows.dtype, chunks=(min(256, n_obs), rows.shape[1]))
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
