"""Files that are too large for the package: fetched once, whole or not at all."""

import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from countsdiff.files import atomic

_BLOCK = 2**20  # bytes read at a time
_TIMEOUT = 60  # seconds without a byte


def cache_dir() -> Path:
    """Folder of downloaded files: ``$COUNTSDIFF_CACHE``, or ``~/.cache/countsdiff``."""
    return Path(os.environ.get("COUNTSDIFF_CACHE") or "~/.cache/countsdiff").expanduser()


def download(url: str, path: Path, check: Callable[[Path], None]) -> None:
    """Download a file; `path` appears when all of it is there and passes the check.

    Parameters
    ----------
    url
        Where it is.
    path
        Where to put it; folders are made.
    check
        Called with the path of the complete download under another name; raises if it is not what was wanted, and the
        download is deleted.

    Raises
    ------
    NotADirectoryError
        If a file stands where the folder should be.
    ConnectionError
        If the server cannot be reached or the transfer breaks off; the message says how to do without.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"{path.parent} is no folder to download to; let COUNTSDIFF_CACHE name one, or nothing."
        ) from error
    with atomic(path) as partial:
        try:
            _transfer(url, partial)
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            raise ConnectionError(
                f"{url} cannot be downloaded ({getattr(error, 'reason', error)}); try again with a connection to the "
                f"internet, or download it elsewhere and copy it to {path}"
            ) from error
        check(partial)


def _transfer(url: str, path: Path) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Downloading {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with (
        urlopen(url, timeout=_TIMEOUT) as response,
        path.open("wb") as file,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        size = response.headers.get("Content-Length")
        total = None if size is None else int(size)
        task = progress.add_task(url.rsplit("/", 1)[-1], total=total)
        while block := response.read(_BLOCK):
            file.write(block)
            progress.advance(task, len(block))
        if total not in (None, file.tell()):
            raise ConnectionError(f"{file.tell():,} of {total:,} bytes arrived")
