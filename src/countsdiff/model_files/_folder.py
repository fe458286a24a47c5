import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from countsdiff.files import hidden_prefix, sync


@contextmanager
def replacing(folder: Path, last: str) -> Iterator[Path]:
    """Yield an empty folder, whose files go into `folder` at the end, all of them or, if anything fails, none.

    A new folder appears by one renaming. In one that exists files of the same names are replaced and all others stay;
    `last`, without which the others count for nothing, goes first and comes last, so that there is never a mixture. A
    program that is killed meanwhile leaves the older files in the temporary folder.

    Parameters
    ----------
    folder
        Where the files belong.
    last
        Name of the file that makes the others valid.
    """
    folder = folder.resolve()
    exists = folder.exists()
    at = folder if exists else folder.parent
    at.mkdir(parents=True, exist_ok=True)
    # inside a folder that exists: its parent may be on another disk, or not ours to write to
    with TemporaryDirectory(prefix=hidden_prefix(folder.name), suffix=".tmp", dir=at) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        yield new
        sync(new)
        if not exists:
            new.rename(folder)
            return
        old.mkdir()
        names = sorted(os.listdir(new), key=lambda name: (name == last, name))
        try:
            for name in reversed(names):
                with suppress(FileNotFoundError):
                    os.replace(folder / name, old / name)
            for name in names:
                os.replace(new / name, folder / name)
        except BaseException:  # also if the user gives up
            for name in reversed(names):
                if not (new / name).exists():
                    os.replace(folder / name, new / name)
            for name in names:
                if (old / name).exists():
                    os.replace(old / name, folder / name)
            raise
