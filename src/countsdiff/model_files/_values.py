"""Python, numpy and pandas values as JSON and back, exactly; whatever JSON has no word for carries a tag."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_TAG = "$"
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_TIMES = tuple(f"{kind}64[{unit}]" for kind in ("datetime", "timedelta") for unit in ("s", "ms", "us", "ns"))
_DTYPES = ("bool", *_INTEGERS, "float16", "float32", "float64", *_TIMES, "object", "str")
_ALLOWED: dict[str, Any] = {"b": bool, "i": int, "u": int, "f": (int, float), "M": int, "m": int, "U": str, "O": object}
_NULLABLE = ("boolean", "Float32", "Float64", *(name.replace("i", "I").replace("u", "U") for name in _INTEGERS))
_EXTENSIONS = ("str", "string", *_NULLABLE)


def encode(value: Any, name: str = "value") -> Any:
    """Value as plain JSON.

    Numbers, strings, None, lists and dicts stand for themselves; numbers that are not finite, tuples, dicts with other
    keys than strings, one-dimensional arrays, numpy scalars, and tables of such columns carry a tag.

    Parameters
    ----------
    value
        Any of these, nested as you like.
    name
        What to call it in a message.

    Raises
    ------
    TypeError
        If there is anything else in it: it would need code to come back.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
    if isinstance(value, dict):  # of any kind: scvi-tools has some that fill themselves
        if all(type(key) is str and key != _TAG for key in value):
            return {key: encode(each, f"{name}.{key}") for key, each in value.items()}
        items = [[encode(key, f"a key of {name}"), encode(each, f"{name}[{key!r}]")] for key, each in value.items()]
        return {_TAG: "dict", "items": items}
    if type(value) in (list, tuple):
        items = [encode(each, f"{name}[{i}]") for i, each in enumerate(value)]
        return items if type(value) is list else {_TAG: "tuple", "items": items}
    if isinstance(value, np.generic):
        return {_TAG: "scalar", "array": _encode_array(np.array([value]), name)}
    if isinstance(value, np.ndarray):
        return _encode_array(value, name)
    if isinstance(value, pd.Categorical):
        categories = encode(value.categories.array, f"the categories of {name}")
        codes = _encode_array(np.asarray(value.codes), name)
        return {_TAG: "categorical", "codes": codes, "categories": categories, "ordered": bool(value.ordered)}
    if isinstance(value, pd.api.extensions.ExtensionArray) and value.dtype.name in _EXTENSIONS:
        values = [None if missing else each for each, missing in zip(value.tolist(), value.isna(), strict=True)]
        return {_TAG: "extension", "dtype": value.dtype.name, "values": encode(values, name)}
    if isinstance(value, pd.arrays.NumpyExtensionArray | pd.arrays.DatetimeArray | pd.arrays.TimedeltaArray):
        return _encode_array(value.to_numpy(), name)
    if isinstance(value, pd.DataFrame) and value.columns.is_unique:
        columns = [
            [encode(key, f"a column of {name}"), encode(column.array, f"{name}.{key}")] for key, column in value.items()
        ]
        index, index_name = encode(value.index.array, f"the index of {name}"), encode(value.index.name, name)
        return {_TAG: "table", "index": index, "index_name": index_name, "columns": columns}
    raise TypeError(
        f"{name} is of type {type(value).__module__}.{type(value).__name__}, which cannot be saved without pickle; "
        "make it text, numbers, or arrays of these."
    )


def decode(value: Any) -> Any:
    """Undo :func:`encode`.

    Raises
    ------
    KeyError, TypeError, ValueError, OverflowError
        If the value was not made by it.
    """
    if isinstance(value, list):
        return [decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: decode(each) for key, each in value.items()}
    tag, content = value[_TAG], {key: each for key, each in value.items() if key != _TAG}
    if not isinstance(tag, str) or tag not in _DECODERS:
        raise ValueError(f"there is no type {tag!r} of values")
    return _DECODERS[tag](**content)


def _encode_array(array: NDArray[Any], name: str) -> dict[str, Any]:
    # text is as wide as its longest entry: a width from the file could ask for any amount of memory
    dtype = "str" if array.dtype.kind == "U" else array.dtype.newbyteorder("=").name
    if array.ndim != 1 or dtype not in _DTYPES:
        raise TypeError(f"{name} is an array of {array.dtype} with shape {array.shape}, which cannot be saved.")
    plain = array.astype(np.int64) if dtype in _TIMES else array
    return {_TAG: "array", "dtype": dtype, "values": encode(plain.tolist(), name)}


def _array(dtype: str, values: list[Any]) -> NDArray[Any]:
    if dtype not in _DTYPES:
        raise ValueError(f"there are no arrays of {dtype!r}")
    kind = np.dtype(dtype).kind
    values = decode(_a_list(values))
    if not all(isinstance(v, _ALLOWED[kind]) and (kind in "bO" or not isinstance(v, bool)) for v in values):
        raise TypeError(f"an array of {dtype} has other values")
    if dtype in _TIMES:
        return np.array(values, dtype=np.int64).astype(dtype)
    if kind != "O":
        return np.array(values, dtype=dtype)
    array = np.empty(len(values), dtype=object)
    for i, each in enumerate(values):  # all at once, lists would become a matrix
        array[i] = each
    return array


def _a_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"there is a list missing where there is {type(value).__name__}")
    return value


def _float(value: str) -> float:
    if value not in ("nan", "inf", "-inf"):
        raise ValueError(f"{value!r} is no number that needs a tag")
    return float(value)


def _column(value: Any) -> Any:
    """Values of a column, an index or categories."""
    column = decode(value)
    if not isinstance(column, np.ndarray | pd.api.extensions.ExtensionArray):
        raise TypeError(f"there is an array missing where there is {type(column).__name__}")
    return column


def _index(value: Any, name: Any = None) -> pd.Index:
    column = _column(value)
    return pd.Index(column, dtype=column.dtype, name=name)


def _table(index: Any, index_name: Any, columns: list[Any]) -> pd.DataFrame:
    rows = _index(index, decode(index_name))
    table = {decode(key): _column(column) for key, column in _a_list(columns)}
    series = {key: pd.Series(each, rows, each.dtype) for key, each in table.items()}
    names = pd.Index(list(table) or [""])[: len(table)]  # of the type that pandas gives to names, be there none
    return pd.DataFrame(series, index=rows, columns=names)


def _extension(dtype: str, values: list[Any]) -> Any:
    if dtype not in _EXTENSIONS:
        raise ValueError(f"there are no columns of {dtype!r}")
    return pd.array(decode(_a_list(values)), dtype=dtype)


_DECODERS: dict[str, Callable[..., Any]] = {
    "array": _array,
    "categorical": lambda codes, categories, ordered: pd.Categorical.from_codes(
        _column(codes), _index(categories), ordered=ordered
    ),
    "dict": lambda items: {decode(key): decode(each) for key, each in _a_list(items)},
    "extension": _extension,
    "float": _float,
    "scalar": lambda array: decode(array)[0],
    "table": _table,
    "tuple": lambda items: tuple(decode(each) for each in _a_list(items)),
}
