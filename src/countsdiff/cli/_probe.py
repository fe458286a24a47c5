"""Whether reading an HDF5 file comes to an end, tried by a process that may hang or crash in place of this one."""

import contextlib
import os
import signal
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# of computing: strings are read many times as fast, and thirty thousand small things take ten seconds
_SECONDS, _BYTES_PER_SECOND = 30, 5_000_000
# attributes that anndata asks for by name, which may be there although the list of all cannot be read
_BY_NAME = ("encoding-type", "encoding-version", "shape", "column-order", "_index", "ordered")
_ROWS = 100_000  # strings in memory at a time


def probe(path: Path) -> None:
    """Read all strings of an HDF5 file in a fork.

    In a damaged heap, where strings lie, HDF5 2.0 goes round in circles (free space of no size) or crashes, and nothing
    within a process can stop it. One in eight hundred damaged files was of that kind.

    Raises
    ------
    ValueError
        If HDF5 crashed, or used more computing time than a whole file of this size would take.
    """
    if not hasattr(os, "fork"):
        return
    limit = _SECONDS + path.stat().st_size // _BYTES_PER_SECOND
    with warnings.catch_warnings():
        # newer Pythons warn of forks beside threads; this one takes no lock that a thread could hold
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            _read_strings(path, limit)
        finally:  # whatever was raised will be again, where it can be said
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        how = "never comes to its end" if os.WTERMSIG(status) == signal.SIGXCPU else "crashes on it"
        raise ValueError(f"HDF5 {how}: this file is damaged; copy or write it again.")


def _read_strings(path: Path, limit: int) -> None:
    import resource

    import h5py

    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def visit(item: Any) -> None:
        names, whole = _all(item.attrs)
        for name in names if whole else {*names, *_BY_NAME}:
            with contextlib.suppress(Exception):
                item.attrs[name]
        if isinstance(item, h5py.Group):
            for name in _all(item)[0]:
                with contextlib.suppress(Exception):
                    visit(item[name])
            return
        text = h5py.check_string_dtype(item.dtype)
        if text is not None and text.length is None and item.shape:
            for start in range(0, len(item), _ROWS):
                item[start : start + _ROWS]

    with h5py.File(path, "r") as file:
        visit(file)


def _all(names: Iterable[str]) -> tuple[list[str], bool]:
    """Names, as many as can be read, and whether these are all."""
    found: list[str] = []
    whole = False
    with contextlib.suppress(Exception):
        found.extend(names)
        whole = True
    return found, whole
