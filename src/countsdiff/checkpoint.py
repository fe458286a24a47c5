"""Checkpoints of a training: tensors and JSON in one file, so that reading it runs no code; and how it is ended."""

import hashlib
import json
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from countsdiff.files import atomic

_TREE = "checkpoint"


class SafeCheckpoints(CheckpointIO):
    """How Lightning's trainer writes and reads its checkpoints, without pickle.

    All of a checkpoint's tensors lie in a safetensors file, and everything else, numbers and names, as JSON in its
    header. A file is written beside the old one and takes its place when it is whole: whatever kills the program,
    the last checkpoint stands.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint in place of the last one.

        Raises
        ------
        TypeError
            If there is something in it that is neither tensor nor JSON.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, torch.Tensor] = {}
        tree = json.dumps(_to_json(checkpoint, tensors, "checkpoint"))
        with atomic(path) as temporary:
            temporary.write_bytes(save(tensors, {_TREE: tree}))

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint, its tensors on the CPU.

        Raises
        ------
        ValueError
            If the file is no checkpoint.
        """
        try:
            with safe_open(path, "pt") as file:
                tree = json.loads(file.metadata()[_TREE])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            checkpoint: dict[str, Any] = _from_json(tree, tensors)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no checkpoint of a training ({error}); name another file.") from error
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def check_same_training(before: Mapping[str, Any], now: Mapping[str, Any], where: str | Path) -> None:
    """Refuse to go on with a training of other data or other settings.

    Parameters
    ----------
    before
        What is trained, by name, as it stands in a checkpoint.
    now
        The same, as asked for.
    where
        File or folder of the checkpoint.

    Raises
    ------
    ValueError
        If they differ; the first difference is named.
    """
    for name in now:
        if before.get(name) != now[name]:
            raise ValueError(
                f"{where}: the training in there has {name} {before.get(name)}, not {now[name]}; give the same "
                "settings and data to go on with it, or another place to start anew."
            )


def checksum(pieces: Iterable[bytes]) -> str:
    """Checksum of data that come in pieces, for :func:`check_same_training`."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()[:16]


@contextmanager
def stopping_as_told() -> Iterator[None]:
    """Have a training that is stopped from outside end as its caller expects.

    Told to end (SIGTERM), the process ends with status 143: with Lightning it would end with 0, as if all were done,
    and a cluster's scheduler goes on to what needs the result. Ctrl-C is a ``KeyboardInterrupt``: Lightning would end
    the process, and leave one that goes on nonetheless deaf to every further Ctrl-C.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException as error:
        raise SystemExit(128 + signal.SIGTERM) from error
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        if on_interrupt is not None:  # a handler that is Python's
            signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None


def _to_json(value: Any, tensors: dict[str, torch.Tensor], where: str) -> Any:
    """`value` with the tensors taken out; dictionaries as lists of pairs, since their keys need not be strings."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()  # tensors of a file must not share memory
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _to_json(item, tensors, f"{where}.{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_to_json(item, tensors, f"{where}.{i}") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}, which a checkpoint has no place for: tensors and JSON only.")


def _from_json(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(tree, list):
        return [_from_json(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    return {key: _from_json(item, tensors) for key, item in tree["items"]}
