"""Files that are written whole or not at all."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def digest(path: Path, kind: str = "sha256") -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def check_digest(path: Path, expected: str, kind: str = "sha256") -> None:
    """Check that a file is the one that was published.

    Raises
    ------
    ValueError
        If it has another checksum.
    """
    found = digest(path, kind)
    if found != expected:
        raise ValueError(
            f"{path}: its {kind.upper()} checksum is {found}, that of the file published is {expected}; it is damaged "
            "or another file, copy or download it again."
        )


def sync(path: Path) -> None:
    """Have a file, or all those in a folder, on the disk: before a power cut a name must not be there without them."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("r+b") as opened:  # Windows synchronises only what may be written
                os.fsync(opened.fileno())


def check_same_format(out: Path, source: Path) -> None:
    """Check that a result goes into a file of the kind that it comes from, .h5ad or zarr.

    Raises
    ------
    ValueError
        If the name of `out` is one of the other kind.
    """
    ending = format_of(source)
    if out.suffix != ending:
        raise ValueError(f"{out}: the output has the format of the input; let its name end in {ending}.")


def format_of(store: Path) -> str:
    """Ending of names of stores of this kind: those of folders need not end so."""
    return ".zarr" if store.suffix == ".zarr" or store.is_dir() else ".h5ad"


def check_apart(out: Path, source: Path) -> None:
    """Check that what is to be written is not what is read, be it under another name (a link), and does not lie in it.

    Raises
    ------
    ValueError
        If it is, or does.
    OSError
        If no file can have one of the names.
    """
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"{out}: the output would overwrite the input {source}; choose another name.")
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: this lies in the input {source}, which is not changed; choose another place.")


def unfinished(out: Path) -> Path:
    """Folder beside `out` for the work on it that is done in pieces, and kept until all of them are there.

    A link is written through; folders keep their names, by which the machines of a cluster know them.
    """
    place = out.resolve() if out.is_symlink() else out.absolute()
    return place.with_name(f"{place.name}.parts")


def hidden_prefix(name: str) -> str:
    """Beginning of the name of what is temporary, which may be no longer than 255 bytes in all."""
    return f".{name[:50]}."


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, which replaces `path` at the end, or goes if anything fails.

    Every attempt has a file of its own: on a cluster those that are taken for dead may still be writing.

    Raises
    ------
    OSError
        If the disk is full, or writing fails for another reason; its ``filename`` is `path`.
    """
    path = path.resolve()
    temporary = path.with_name(f"{hidden_prefix(path.stem)}{uuid.uuid4().hex}.tmp{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None:  # from the system, not a sentence of somebody's
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
