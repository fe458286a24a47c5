"""A JSON document that says what it is, which version of it, and whether anyone changed it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from countsdiff.model_files._error import ModelFileError, believing
from countsdiff.model_files._types import check_type
from countsdiff.model_files._values import decode, encode

Content = dict[str, Any]


@dataclass(frozen=True)
class FormatVersion:
    """What a program writes, and what it can still read.

    Attributes
    ----------
    name
        Name of the format.
    current
        Version that is written.
    migrations
        For every version that is no longer written, what makes the next one of its content.
    """

    name: str
    current: int
    migrations: Mapping[int, Callable[[Content], Content]] = field(default_factory=dict)


def write_document(content: Content, path: Path, version: FormatVersion) -> None:
    """Write a document; see :func:`~countsdiff.model_files.encode` for what its content may be.

    Raises
    ------
    TypeError
        If there is anything in it that cannot be saved.
    """
    plain = {key: encode(value, key) for key, value in content.items()}
    head = {"format": version.name, "format_version": version.current, "sha256": checksum(plain)}
    path.write_text(json.dumps({**head, "content": plain}, allow_nan=False) + "\n", encoding="ascii")


def read_document(path: Path, version: FormatVersion) -> Content:
    """Read what :func:`write_document` wrote, now or in an earlier version.

    Raises
    ------
    ModelFileError
        If it is none, was written by a later version, or changed since.
    """
    with believing(path):
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict) or document.get("format") != version.name:
            raise ValueError(f"it is no {version.name}")
        found = document["format_version"]
        if type(found) is not int or found < 1:
            raise ValueError(f"there is no version {found!r} of its format")
        if found > version.current:
            raise ModelFileError(
                f"{path}: this file is in version {found} of its format, and this countsdiff knows {version.current}; "
                "upgrade countsdiff."
            )
        plain = document["content"]
        check_type(plain, dict, "content")
        if document["sha256"] != checksum(plain):
            raise ValueError("it was changed after it was written (the checksum differs)")
        content: Content = {key: decode(value) for key, value in plain.items()}
        for old in range(found, version.current):
            content = version.migrations[old](content)
        return content


def checksum(plain: Any) -> str:
    """Checksum of JSON, however it is laid out."""
    return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode("ascii")).hexdigest()
