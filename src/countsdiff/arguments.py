"""Checks of arguments that many functions take."""

import numbers


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
