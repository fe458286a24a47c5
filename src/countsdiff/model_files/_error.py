from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 300  # characters of a cause, which may quote what is in the file


class ModelFileError(ValueError):
    """A saved model cannot be read; the message names the file, what is wrong with it, and what to do."""


@contextmanager
def believing(path: Path, remedy: str = "get an unchanged copy, or save the model again") -> Iterator[None]:
    """Turn whatever reading or checking the contents of a file runs into into a :class:`ModelFileError` about it."""
    try:
        yield
    except ModelFileError:
        raise
    except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        # the text of a KeyError is the repr of its argument
        cause = error.args[0] if isinstance(error, KeyError) and error.args else error
        text = next(iter(str(cause).splitlines()), type(error).__name__).strip().rstrip(".")
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
        raise ModelFileError(f"{path}: this file cannot be used, {text}; {remedy}.") from error
