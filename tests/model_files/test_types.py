from typing import Any, Literal, TypedDict

import numpy as np
import pytest
from numpy.typing import NDArray

from countsdiff.model_files import check_type


class Inner(TypedDict):
    n: int


class Outer(TypedDict):
    name: str
    inner: dict[str, Inner]
    choice: Literal["a", "b"] | None


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (1, float),
        (None, int | None),
        ([1, 2], list[int]),
        ({"a": [None, "b"]}, dict[str, list[str | None]]),
        (np.zeros(2), NDArray[Any]),
        ({"name": "x", "inner": {"y": {"n": 1, "more": 2}}, "choice": "b"}, Outer),
        (object(), Any),
    ],
)
def test_what_fits_passes(value, hint):
    check_type(value, hint, "it")


@pytest.mark.parametrize(
    ("value", "hint", "says"),
    [
        (True, int, "it is True, not of type int"),
        (1.0, int, "it is 1.0, not of type int"),
        ("1", float, "it is '1', not of type float"),
        ("x", int | None, "it is 'x'"),
        ([1, "b"], list[int], r"it\[1\] is 'b', not of type int"),
        ({1: 2}, dict[str, int], "a name in it is 1"),
        ("c", Literal["a", "b"], "it is 'c', none of 'a', 'b'"),
        (1, Literal[True], "it is 1, none of True"),
        ("x" * 99, int, "it is of type str, not of type int"),
        ({"name": "x", "inner": {}}, Outer, "it does not have the entries name, inner, choice"),
        ({"name": "x", "inner": {"y": {"n": None}}, "choice": None}, Outer, "it.inner.y.n is None, not of type int"),
        ([], Outer, "it does not have the entries"),
        ([], NDArray[Any], r"it is \[\], not of type ndarray"),
    ],
)
def test_what_does_not_fit_is_named(value, hint, says):
    with pytest.raises(TypeError, match=says):
        check_type(value, hint, "it")
