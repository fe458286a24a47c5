import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from countsdiff.model_files import decode, encode


def there_and_back(value):
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)))


def same(a, b):
    """Whether two values are alike down to the types, NaN being like NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and len(a) == len(b) and all(map(same, a.tolist(), b.tolist()))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["$", "\ud800"])
NUMPY = st.sampled_from(
    [np.int8(-3), np.uint64(2**64 - 1), np.float32(0.1), np.float64("nan"), np.bool_(True), np.str_("é")]
)
ARRAYS = st.one_of(
    st.lists(st.integers(-128, 127)).flatmap(
        lambda v: st.sampled_from(["int8", "int16", "int64", "float16", "float32", "float64"]).map(
            lambda d: np.array(v, d)
        )
    ),
    st.lists(st.floats()).map(np.array).filter(lambda a: a.dtype == float),
    st.lists(st.booleans()).map(lambda v: np.array(v, bool)),
    st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), min_size=1).map(np.array),
    st.lists(st.text() | st.integers() | st.none() | st.floats()).map(lambda v: pd.Series(v, dtype=object).to_numpy()),
)
KEYS = st.text() | st.just("$") | st.integers() | st.none()
VALUES = st.recursive(
    SCALARS | NUMPY | ARRAYS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=10,
)


@given(VALUES)
def test_every_value_comes_back_as_it_was(value):
    assert same(there_and_back(value), value)


def test_numbers_come_back_to_the_last_bit():
    values = np.random.default_rng(0).integers(2**64, size=2000, dtype=np.uint64).view(np.float64)
    values = values[np.isfinite(values)]
    assert (there_and_back(values).view(np.uint64) == values.view(np.uint64)).all()
    few = np.random.default_rng(1).normal(size=100).astype(np.float32)
    assert (there_and_back(few).view(np.uint32) == few.view(np.uint32)).all()


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "datetime64[s]", "timedelta64[ms]"])
def test_times_come_back(dtype):
    times = np.array([0, 1, -5, np.iinfo(np.int64).min], dtype=np.int64).view(dtype)  # the last one is "not a time"
    found = there_and_back(times)
    assert found.dtype == times.dtype
    np.testing.assert_array_equal(found.view(np.int64), times.view(np.int64))


def test_tables_come_back():
    table = pd.DataFrame(
        {
            "category": pd.Categorical(["b", None, "a"], categories=["b", "a", "unused"], ordered=True),
            "number": pd.Categorical([1.5, 2.5, 1.5]),
            "text": pd.array(["x", None, "z"], dtype="string"),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "plain": np.array([True, False, True]),
            "age": np.array([0.1, np.nan, np.inf], dtype=np.float32),
            "object": np.array(["x", 1, None], dtype=object),
            "day": pd.to_datetime(["2020-01-01", None, "2021-02-03"]),
        },
        index=pd.Index([3, 5, 9], name="epoch"),
    )
    pd.testing.assert_frame_equal(there_and_back(table), table)
    pd.testing.assert_frame_equal(there_and_back(table[[]]), table[[]])


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        1j,
        len,
        np.zeros((2, 2)),
        np.zeros(2, dtype=[("a", int)]),
        np.array([b"x"]),
        np.array([object()]),
        pd.Series([1]),
        pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]),
        pd.DataFrame({"a": pd.to_datetime(["2020-01-01"]).tz_localize("UTC")}),
        pd.DataFrame({"a": pd.cut([1, 2], 2)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_need_code_to_come_back_is_refused_by_name(value):
    with pytest.raises(TypeError, match=r"registry\.batch\[1\].*cannot be saved"):
        encode({"batch": [0, value]}, "registry")


@pytest.mark.parametrize(
    "value",
    [
        {"$": "nothing"},
        {"$": ["array"]},
        {"$": "array", "dtype": "int64"},
        {"$": "array", "dtype": "int64", "values": [1], "more": 2},
        {"$": "array", "dtype": "<U1000000000", "values": ["a"]},
        {"$": "array", "dtype": "void", "values": []},
        {"$": "array", "dtype": "uint8", "values": [256]},
        {"$": "array", "dtype": "int64", "values": [1.5]},
        {"$": "array", "dtype": "int64", "values": [True]},
        {"$": "array", "dtype": "str", "values": [1]},
        {"$": "array", "dtype": "float64", "values": "12"},
        {"$": "float", "value": "1.5"},
        {"$": "scalar", "array": {"$": "array", "dtype": "int64", "values": []}},
        {"$": "scalar", "array": 7},
        {"$": "dict", "items": [[[], 1]]},
        {"$": "tuple", "items": {}},
        {"$": "extension", "dtype": "category", "values": ["a"]},
        {"$": "table", "index": 7, "index_name": None, "columns": []},
        {
            "$": "categorical",
            "codes": {"$": "array", "dtype": "int8", "values": [3]},
            "categories": {"$": "array", "dtype": "object", "values": ["a"]},
            "ordered": False,
        },
    ],
)
def test_tags_that_encode_did_not_make_are_refused(value):
    with pytest.raises((LookupError, OverflowError, TypeError, ValueError)):
        decode([value])
