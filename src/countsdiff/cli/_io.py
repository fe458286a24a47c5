"""Reading and writing files so that nothing is lost, and saying in one sentence what is wrong with them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from countsdiff.cli._probe import probe
from countsdiff.files import atomic, check_apart

if TYPE_CHECKING:
    from anndata import AnnData


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class InputError(Exception):
    """Something that the user gave is wrong; the message is one sentence that says what, and what to do."""


@contextmanager
def blame(path: Path | None = None) -> Iterator[None]:
    """Turn complaints about what the user gave into an :class:`InputError`.

    Those about a file at `path` are told to be of it; without one they say themselves what they are about, be it an
    extra that is not installed.
    """
    complaints = (ValueError, OSError, ImportError) if path is None else (ValueError, OSError, KeyError)
    try:
        yield
    except InputError:
        raise
    except complaints as error:
        if isinstance(error, OSError) and is_no_room(error):
            raise no_room(error, path) from error
        # the text of a KeyError is the repr of its argument
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise InputError(_of(path) + " ".join(str(message).split())) from error
    except Exception as error:
        # imported when it may be it: that takes seconds, and most complaints are of other kinds
        from lightning.pytorch.utilities.exceptions import MisconfigurationException

        if not isinstance(error, MisconfigurationException):
            raise
        raise InputError(" ".join(str(error).split())) from error  # of the machine, not of the file


def is_no_room(error: OSError) -> bool:
    """Whether a disk is full, or as much of it as this user or process may have."""
    return error.errno in _NO_ROOM


def no_room(error: OSError, path: Path | None = None) -> InputError:
    """What to say where a disk is full."""
    return InputError(f"{_of(error.filename or path)}writing failed ({error.strerror}); make room, or write elsewhere.")


def _of(path: Path | str | None) -> str:
    return "" if path is None else f"{path}: "


def read(path: Path) -> "AnnData":
    """Read an .h5ad file, or a zarr store.

    Raises
    ------
    InputError
        If there is no such file, or it is no .h5ad file, or only a part of one.
    """
    import anndata
    import h5py
    from scipy import sparse

    from countsdiff.layers import named_layers
    from countsdiff.matrix import check_sparse
    from countsdiff.store.reading import cause_of, check_stored_sparse, open_store

    if path.is_dir() and path.suffix == ".zarr":
        with blame(path):
            open_store(path)  # or says what is wrong with it
            return anndata.read_zarr(path)
    if not path.is_file():
        raise InputError(f"{path}: {'this is not a file' if path.exists() else 'there is no such file'}.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read this file.")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: this is not an .h5ad file; write one with adata.write_h5ad().")
    with blame(path):
        probe(path)
    try:
        with h5py.File(path, "r") as file:
            if "mod" in file:
                raise InputError(
                    f"{path}: this file holds MuData, and the command line takes AnnData; write one modality with "
                    "mdata['rna'].write_h5ad(), or use CountsDiffImputer.setup_mudata in Python."
                )
            if "obs" not in file or "var" not in file:
                raise InputError(f"{path}: this HDF5 file holds no AnnData; write one with adata.write_h5ad().")
            for group in [file.get("X"), *file.get("layers", {}).values()]:
                if isinstance(group, h5py.Group):
                    check_stored_sparse(group)
        adata = anndata.read_h5ad(path)
        for matrix in (adata.X, *named_layers(adata).values()):
            if sparse.issparse(matrix):
                check_sparse(matrix)
        return adata
    except InputError:
        raise
    except Exception as error:  # a damaged file makes the libraries that read it raise anything
        raise InputError(f"{path}: this file cannot be read, {cause_of(error)}; copy or write it again.") from error


@contextmanager
def possible(path: Path) -> Iterator[None]:
    """Turn what the system says of a name that no file can have, such as one that is too long, into a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; choose another name.") from error


def check_output(path: Path, *inputs: Path) -> None:
    """Check that `path` can be written, and is none of the files that are read, nor in one of their folders.

    Raises
    ------
    InputError
        If it cannot, or is one of them, be it under another name (a link).
    """
    for source in inputs:
        _check_apart(path, source)
    if path.is_dir() and path.suffix != ".zarr":
        raise InputError(f"{path}: this is a folder; name a file to write.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: this is a device, which a file cannot take the place of; name a file to write.")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise InputError(f"{path}: there is no folder {folder}; create it first.")
    _check_permission(path, folder)


def check_folder(path: Path, *inputs: Path) -> None:
    """Check that files can be written to the folder `path`, which is made, parents and all, where it is not there.

    Raises
    ------
    InputError
        If they cannot, if there is a file of that name, or if it lies in one of the folders that are read.
    """
    for source in inputs:
        _check_apart(path, source)
    whole = path.resolve()
    with possible(path):
        there = next(folder for folder in (whole, *whole.parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"{path}: {there} is a file; name a folder.")
    _check_permission(path, there)


def _check_apart(path: Path, source: Path) -> None:
    with blame(), possible(path):
        check_apart(path, source)


def _check_permission(path: Path, folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write to {folder}; choose another place.")


def write(adata: "AnnData", path: Path) -> None:
    """Write an .h5ad file; a reader of `path` sees the old file or the whole new one.

    Raises
    ------
    InputError
        If the disk is full, or writing fails for another reason.
    """
    from anndata.io import write_elem

    from countsdiff.store.hdf5 import hdf5_file

    adata.strings_to_categoricals()  # as write_h5ad does, which opens files itself
    with blame(path), atomic(path) as temporary, hdf5_file(temporary, "w") as file:
        # level 1: imputed means do not compress better with more effort
        write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip", "compression_opts": 1})
        if adata.raw is None and "raw" in file:
            del file["raw"]  # an element of a kind that older readers do not know


def say(*lines: str | None) -> None:
    """Print the lines there are to standard output."""
    print(*(line for line in lines if line is not None), sep="\n")
