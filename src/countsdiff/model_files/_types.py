"""Whether a value read from a file is what it is taken for, by the type hints that say so."""

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict


def check_type(value: Any, hint: Any, name: str) -> None:
    """Check a value against a type hint, down to the last entry.

    Parameters
    ----------
    value
        Anything.
    hint
        A class, taken exactly (``float`` takes whole numbers, too); ``Any``; or a ``Literal``, union, ``list``,
        ``dict`` or ``TypedDict`` (which may have more entries) of these.
    name
        What to call the value.

    Raises
    ------
    TypeError
        If it does not fit; the message names the entry.
    """
    for fault in _faults(value, hint, name):
        raise TypeError(fault)


def _faults(value: Any, hint: Any, name: str) -> Iterator[str]:
    if hasattr(alias := get_origin(hint) or hint, "__value__"):  # numpy's NDArray is one from 2.5 on
        hint = alias.__value__
    origin, arguments = get_origin(hint), get_args(hint)
    fault = f"{name} is {_show(value)}"
    if hint is Any:
        return
    elif origin in (Union, UnionType):
        if all(any(_faults(value, each, name)) for each in arguments):
            yield fault
    elif origin is Literal:
        if not any(type(value) is type(each) and value == each for each in arguments):
            yield f"{fault}, none of {', '.join(map(repr, arguments))}"
    elif is_typeddict(hint):
        hints = get_type_hints(hint)
        if type(value) is not dict or not set(hints) <= set(value):
            yield f"{name} does not have the entries {', '.join(hints)}"
        else:
            for key, each in hints.items():
                yield from _faults(value[key], each, f"{name}.{key}")
    elif type(value) is not (origin or hint) and not (hint is float and type(value) is int):
        yield f"{fault}, not of type {(origin or hint).__name__}"
    elif origin is dict:
        for key, each in value.items():
            yield from _faults(key, arguments[0], f"a name in {name}")
            yield from _faults(each, arguments[1], f"{name}.{key}")
    elif origin is list:
        for i, each in enumerate(value):
            yield from _faults(each, arguments[0], f"{name}[{i}]")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"of type {type(value).__name__}"
