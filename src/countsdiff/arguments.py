"""Checks of arguments that many functions take."""

import numbers
from collections.abc import Iterable
from typing import Any

MAX_SEED = 2**32 - 1  # numpy's


def check_whole(least: int | None = None, **arguments: object) -> None:
    """Check that arguments, given by their names, are whole numbers, and none below `least`.

    Raises
    ------
    ValueError
        Naming the first argument that is not.
    """
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or (least is not None and value < least):
            bound = "" if least is None else f", at least {least}"
            raise ValueError(f"{name} is a whole number{bound}; got {value!r}.")


def check_choice(choices: Iterable[str], **arguments: object) -> None:
    """Check that arguments, given by their names, are among the choices there are.

    Raises
    ------
    ValueError
        Naming the first argument that is not, and the choices.
    """
    choices = tuple(choices)
    for name, value in arguments.items():
        if value not in choices:
            raise ValueError(f"Unknown {name} {value!r}; choose one of {', '.join(choices)}.")


def plain(value: Any) -> Any:
    """Return one of numpy's numbers as one of Python's, which can be saved; anything else as it is."""
    return value.item() if isinstance(value, numbers.Number) and hasattr(value, "item") else value


def check_seed(seed: object) -> int:
    """Check that a seed is a whole number that all generators take, and return it as an int.

    Raises
    ------
    ValueError
        If it is not, or negative, or more than ``MAX_SEED``.
    """
    if isinstance(seed, numbers.Integral) and not isinstance(seed, bool) and 0 <= int(seed) <= MAX_SEED:
        return int(seed)
    raise ValueError(f"seed is a whole number between 0 and {MAX_SEED}; got {seed!r}.")
