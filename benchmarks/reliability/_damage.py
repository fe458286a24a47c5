"""Ways to damage a saved model, in the folder that it lies in."""

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from countsdiff.files import digest
from countsdiff.model._record import FORMAT
from countsdiff.model_files import read_document, write_document
from countsdiff.model_files._document import checksum

RECORD, WEIGHTS = "model.json", "model.safetensors"

Bytes = Callable[[bytes, np.random.Generator], bytes]


def _cut(data: bytes, rng: np.random.Generator) -> tuple[bytes, bytes, bytes]:
    """Three parts; the middle one is short, or anything."""
    start = int(rng.integers(len(data)))
    end = start + 1 + int(rng.integers(rng.choice([4, 64, len(data)])))
    return data[:start], data[start:end], data[end:]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    flipped = bytearray(data)
    for place in rng.integers(8 * len(data), size=rng.integers(1, 9)):
        flipped[place // 8] ^= 1 << (place % 8)
    return bytes(flipped)


def _overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    before, middle, after = _cut(data, rng)
    return before + (rng.bytes(len(middle)) if rng.random() < 0.5 else bytes(len(middle))) + after


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    before, middle, after = _cut(data, rng)
    return before + middle + (rng.bytes(8) if rng.random() < 0.5 else middle) + after


def _header(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage in the first bytes, which say how safetensors are laid out."""
    n = min(len(data), 6000)
    return _flip(data[:n], rng) + data[n:]


def _length(data: bytes, rng: np.random.Generator) -> bytes:
    return struct.pack("<Q", int(rng.integers(2 ** int(rng.integers(1, 63))))) + data[8:]


BYTES: dict[str, Bytes] = {
    "cut short": lambda data, rng: data[: int(rng.integers(len(data)))],
    "bits flipped": _flip,
    "bits flipped near the beginning": _header,
    "a stretch overwritten": _overwrite,
    "a stretch left out": lambda data, rng: b"".join(_cut(data, rng)[::2]),
    "a stretch repeated, or bytes put in": _insert,
    "bytes added at the end": lambda data, rng: data + rng.bytes(int(rng.integers(1, 99))),
    "another length of the header": _length,
}


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths to all entries of nested lists and dicts."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, each in inside for place in ((*path, key), *_places(each, (*path, key)))]


def _junk(rng: np.random.Generator, document: Any) -> Any:
    """A value of any type and size, or one from elsewhere in the document."""
    values = [
        None,
        True,
        False,
        0,
        -1,
        2,
        7,
        10**12,
        10**30,
        -(2**63),
        0.5,
        1e308,
        "",
        "X",
        "counts",
        "\ud800",
        "a" * 9999,
    ]
    values += [
        [],
        {},
        [[]],
        [None],
        {"": 1},
        ["T", "T"],
        {"$": "float", "value": "nan"},
        {"$": "float", "value": "inf"},
    ]
    values += [
        {"$": "tuple", "items": [1]},
        {"$": "array", "dtype": "float64", "values": []},
        {"$": "nothing"},
        {"$": 3},
    ]
    values += [{"$": "array", "dtype": "<U1000000000", "values": ["a"]}, {"$": "dict", "items": [[1, 2], [[], 3]]}]
    values += [
        {"$": "array", "dtype": "uint8", "values": [256]},
        {"$": "array", "dtype": "object", "values": [[], "a"]},
    ]
    values += [{"$": "scalar", "array": {"$": "array", "dtype": "int64", "values": []}}, {"$": "table"}]
    deep: Any = 1
    for _ in range(int(rng.choice([20, 200]))):
        deep = [deep]
    values.append(deep)
    if rng.random() < 0.3:
        return copy.deepcopy(_at(document, _pick(rng, _places(document))))
    return values[int(rng.integers(len(values)))]


def _pick(rng: np.random.Generator, places: list[tuple]) -> tuple:
    """A place, first at which depth: most of them are in lists."""
    depth = rng.choice(sorted({len(place) for place in places}))
    candidates = [place for place in places if len(place) == depth]
    return candidates[int(rng.integers(len(candidates)))]


def _at(document: Any, place: tuple) -> Any:
    for key in place:
        document = document[key]
    return document


def _edit(document: Any, rng: np.random.Generator) -> None:
    """Replace, remove, rename or repeat an entry."""
    place = _pick(rng, _places(document))
    parent, key = _at(document, place[:-1]), place[-1]
    what = rng.choice(["replace", "replace", "replace", "remove", "rename", "repeat"])
    if what == "replace":
        parent[key] = _junk(rng, document)
    elif what == "remove":
        del parent[key]
    elif isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[f"{key}s" if what == "rename" else "more"] = (
            parent.pop(key) if what == "rename" else copy.deepcopy(parent[key])
        )


def _edit_json(folder: Path, rng: np.random.Generator) -> None:
    document = json.loads((folder / RECORD).read_text())
    _edit(document, rng)
    (folder / RECORD).write_text(json.dumps(document))


def _nest(folder: Path, rng: np.random.Generator) -> None:
    """Put lists within lists in the place of an entry, as text: too deep for Python to write."""
    document = json.loads((folder / RECORD).read_text())
    place = _pick(rng, _places(document))
    _at(document, place[:-1])[place[-1]] = "here"
    n = int(rng.choice([300, 1_000, 10_000, 300_000]))
    (folder / RECORD).write_text(json.dumps(document).replace('"here"', "[" * n + "]" * n))


def _forge_json(folder: Path, rng: np.random.Generator) -> None:
    document = json.loads((folder / RECORD).read_text())
    for _ in range(int(rng.integers(1, 3))):
        _edit(document["content"], rng)
    document["sha256"] = checksum(document["content"])
    (folder / RECORD).write_text(json.dumps(document))


def _forge_weights(folder: Path, rng: np.random.Generator) -> None:
    state = load((folder / WEIGHTS).read_bytes())
    name = sorted(state)[int(rng.integers(len(state)))]
    value = state[name]
    what = int(rng.integers(9))
    if what == 0:
        del state[name]
    elif what == 1:
        state[f"{name}s"] = value.clone()
    elif what == 2:
        state[name] = value.flatten()[: max(value.numel() - 1, 0)].clone()
    elif what == 3:
        state[name] = value.to(rng.choice([torch.float64, torch.int32, torch.bfloat16, torch.bool, torch.complex64]))
    elif what in (4, 5) and value.numel() and value.is_floating_point():
        value.flatten()[int(rng.integers(value.numel()))] = float(rng.choice([np.nan, np.inf, -np.inf, 1e38]))
    elif what == 6:
        state[name] = value.T.contiguous() if value.ndim == 2 else value[None]
    elif what == 7:
        state = {}
    else:
        state[name] = torch.zeros(int(rng.integers(1, 10**6)), dtype=value.dtype)
    (folder / WEIGHTS).write_bytes(save(state))
    _sign_weights(folder)


def _forge_bytes(folder: Path, rng: np.random.Generator) -> None:
    how = BYTES[rng.choice(["bits flipped near the beginning", "bits flipped", "another length of the header"])]
    (folder / WEIGHTS).write_bytes(how((folder / WEIGHTS).read_bytes(), rng))
    _sign_weights(folder)


def _sign_weights(folder: Path) -> None:
    content = read_document(folder / RECORD, FORMAT)
    write_document({**content, "weights_sha256": digest(folder / WEIGHTS)}, folder / RECORD, FORMAT)


def _misplace(folder: Path, rng: np.random.Generator) -> None:
    """Remove a file, exchange the two, or put an empty file or a folder in the place of one."""
    file = folder / rng.choice([RECORD, WEIGHTS])
    what = rng.choice(["remove", "exchange", "empty", "folder"])
    if what == "exchange":
        (folder / RECORD).rename(folder / "x")
        (folder / WEIGHTS).rename(folder / RECORD)
        (folder / "x").rename(folder / WEIGHTS)
        return
    file.unlink()
    if what == "empty":
        file.touch()
    elif what == "folder":
        file.mkdir()


def _damage_file(name: str, how: Bytes) -> Callable[[Path, np.random.Generator], None]:
    def damage(folder: Path, rng: np.random.Generator) -> None:
        (folder / name).write_bytes(how((folder / name).read_bytes(), rng))

    return damage


FORGERIES = {
    "forged: entries of model.json": _forge_json,
    "forged: weights": _forge_weights,
    "forged: bytes of model.safetensors": _forge_bytes,
}
DAMAGES = {
    **{f"{file}: {name}": _damage_file(file, how) for file in (RECORD, WEIGHTS) for name, how in BYTES.items()},
    "model.json: entries changed, removed, renamed": _edit_json,
    "model.json: nested deeply": _nest,
    "files removed, exchanged, empty": _misplace,
    **FORGERIES,
}
# what goes through most checks is tried most
SHARES = {"forged: entries of model.json": 8, "model.json: entries changed, removed, renamed": 3}
