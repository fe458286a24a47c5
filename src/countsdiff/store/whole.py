"""Stores as a whole, files and folders alike: checked, copied, put in the place of others, deleted, measured."""

import os
import shutil
from pathlib import Path

from countsdiff.files import check_apart, sync
from countsdiff.store.reading import open_zarr


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
        return bool(open_zarr(path, "r").attrs.get("encoding-type") == "anndata")
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
