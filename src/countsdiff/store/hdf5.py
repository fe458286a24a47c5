"""HDF5 files on a disk that may be full."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py


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
