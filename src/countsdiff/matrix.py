"""What every function that takes a matrix asks of it first."""

from typing import Any


def check_is_matrix(**values: Any) -> None:
    """Check that no whole table was given where a matrix is wanted: numpy would go through it cell by cell, and fail.

    Raises
    ------
    TypeError
        Naming the argument, and what to give instead.
    """
    for name, value in values.items():
        if hasattr(value, "layers") or hasattr(value, "mod"):
            kind = type(value).__name__
            raise TypeError(f"{name} is an {kind}; give one of its matrices, such as .X or .layers['counts'].")
