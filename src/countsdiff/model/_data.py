"""What is registered beside the counts: fields, covariates and which of the cells."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scvi.data.fields import CategoricalObsField, LayerField, MuDataWrapper, NumericalJointObsField

from countsdiff.layers import require_columns
from countsdiff.model_files import encode


class Keys(NamedTuple):
    """Names of the package's own fields in scvi-tools' registry."""

    MISSING: str = "missing"
    PRESENT: str = "present"


KEYS = Keys()


class CategoryField(CategoricalObsField):
    """Categories of any kind: scvi-tools sorts them to count them, and numbers cannot be sorted beside "unknown".

    It also warns of those of few cells, by numbers of its own, and anew of all data that are imputed.
    """

    def register_field(self, adata: AnnData) -> dict:
        """Register the column."""
        with _small_categories_welcome():
            state: dict = super().register_field(adata)
        return state

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Register the column on `adata_target`."""
        with _small_categories_welcome():
            state: dict = super().transfer_field(state_registry, adata_target, **kwargs)
        return state

    def get_summary_stats(self, state_registry: dict) -> dict[str, int]:
        """Count the categories."""
        return {self.count_stat_key: len(state_registry[self.CATEGORICAL_MAPPING_KEY])}


@contextmanager
def _small_categories_welcome() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Category .* has fewer than 3 cells")
        yield


class NumbersField(NumericalJointObsField):
    """Numbers of any kind: truth values and pandas' own missing ones would make a table of objects."""

    def register_field(self, adata: AnnData) -> dict:
        """Register the columns as one table of floats."""
        state: dict = super().register_field(adata)
        adata.obsm[self.attr_key] = adata.obsm[self.attr_key].astype(np.float64)
        return state


MuDataCategoryField, MuDataNumbersField = MuDataWrapper(CategoryField), MuDataWrapper(NumbersField)


class OptionalLayerField(LayerField):
    """A layer that training needs and query data may lack (entries marked as missing)."""

    def validate_field(self, adata: AnnData) -> None:
        """Validate the layer if it is there."""
        if self.attr_key in adata.layers:
            super().validate_field(adata)

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Register the layer on `adata_target` if it is there."""
        if self.attr_key not in adata_target.layers:
            return state_registry
        return super().transfer_field(state_registry, adata_target, **kwargs)


def check_is_data(adata: Any) -> None:
    """Check that data are annotated, not the path of a file, say, or a matrix.

    Raises
    ------
    TypeError
        If they are not.
    """
    if not isinstance(adata, AnnData | MuData):
        raise TypeError(f"The data are AnnData or MuData; got {type(adata).__name__}.")


def obs_of(data: AnnData | MuData) -> str:
    """How users call the table of cells of their data."""
    return "mdata.obs" if isinstance(data, MuData) else "adata.obs"


def covariate_columns(setup: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Columns of ``obs`` that a set-up names: those of categories, and those of numbers, the size factor first."""

    def named(single: tuple[str, ...], several: str) -> list[str]:
        return [*(setup[key] for key in single if setup.get(key) is not None), *(setup.get(several) or ())]

    return (
        named(("batch_key", "labels_key"), "categorical_covariate_keys"),
        named(("size_factor_key",), "continuous_covariate_keys"),
    )


def check_columns(data: AnnData | MuData, setup: Mapping[str, Any], remedy: str = "") -> None:
    """Check that the covariates of a set-up are there, and what they hold.

    Raises
    ------
    KeyError
        Naming a column that is absent, and the `remedy` if there is one.
    ValueError
        As :func:`check_covariates`.
    """
    require_columns(data, chain(*covariate_columns(setup)), remedy)
    check_covariates(data, setup)


def check_covariates(adata: AnnData, setup: Mapping[str, Any]) -> None:
    """Check the covariates that are registered, as far as they are there.

    Every cell needs a category, and categories are all text, numbers or dates, which a saved model can hold; numbers
    are finite, or NaN where unknown; size factors are positive.

    Raises
    ------
    ValueError
        Naming the column and the first cell whose value will not do, and what to do.
    """
    categorical, numbers = covariate_columns(setup)
    where = obs_of(adata)
    for key in categorical:
        if key not in adata.obs:
            continue
        values = adata.obs[key].unique()
        if pd.isna(values).any():
            cell = adata.obs_names[np.flatnonzero(adata.obs[key].isna())[0]]
            raise ValueError(
                f"{where}[{key!r}] has no value for cell {cell!r}; fill in a category, such as 'unknown', or leave "
                "such cells out."
            )
        if len({isinstance(value, str) for value in values}) > 1:
            raise ValueError(
                f"{where}[{key!r}] mixes text and numbers; make all of it text: {where}[{key!r}].astype(str)."
            )
        try:
            encode(np.asarray(values))
        except TypeError as error:
            raise ValueError(
                f"{where}[{key!r}] holds values that cannot be saved with a model, such as {values[0]!r}; make them "
                f"text: {where}[{key!r}].astype(str)."
            ) from error
    size_factor = setup.get("size_factor_key")
    for key in numbers:
        if key not in adata.obs:
            continue
        if not pd.api.types.is_numeric_dtype(adata.obs[key]):
            raise ValueError(f"{where}[{key!r}] holds {adata.obs[key].dtype}, not numbers.")
        values = adata.obs[key].to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.isinf(values) | ((values <= 0.0) if key == size_factor else False)
        if bad.any():
            cell, value = adata.obs_names[np.argmax(bad)], values[np.argmax(bad)]
            wanted = "a size factor, positive and finite" if key == size_factor else "a finite number"
            raise ValueError(
                f"{where}[{key!r}] holds {value:g} for cell {cell!r}, which is not {wanted}; unknown ones are NaN."
            )


def is_single(value: Any) -> bool:
    """Whether a category is given, rather than several in a list, an array or a column."""
    several = (Sequence, np.ndarray, pd.Series, pd.Index, pd.Categorical)
    return isinstance(value, str) or not isinstance(value, several)


def chosen_rows(n_obs: int, indices: Any) -> NDArray[np.intp]:
    """Positions of the cells that `indices` asks for, in its order; ``None`` asks for all.

    Raises
    ------
    TypeError
        If they are neither positions nor a boolean for each cell.
    ValueError
        If they are none, or there are no such cells.
    """
    rows = np.arange(n_obs)
    if indices is None:
        return rows
    wanted = rows[indices] if isinstance(indices, slice) else np.atleast_1d(np.asarray(indices))
    if len(wanted) and wanted.dtype.kind not in "biu":
        raise TypeError(
            f"indices are positions of cells, or a boolean for each; got {wanted[0]!r}. Names have positions: "
            "adata.obs_names.get_indexer(names)."
        )
    if wanted.ndim > 1:
        raise ValueError(f"indices are one list of cells; got {wanted.ndim} dimensions.")
    try:
        chosen: NDArray[np.intp] = rows[wanted] if len(wanted) else rows[:0]
    except IndexError as error:
        raise ValueError(f"indices do not fit the data of {n_obs} cells: {error}.") from error
    if len(chosen) == 0:
        raise ValueError("indices names no cells; leave it out for all of them.")
    return chosen


def row_keys(obs_names: pd.Index) -> NDArray[np.int64]:
    """A 64-bit key per cell from its name, so that a cell's random numbers follow it through subsets and reorderings.

    Cells that share a name are told apart by their rank among each other.
    """
    names = pd.Series(obs_names.astype(str))
    hashed = pd.util.hash_array(names.to_numpy(dtype=object), categorize=False)
    rank = names.groupby(names.to_numpy()).cumcount().to_numpy(dtype=np.uint64)
    return (hashed + rank * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)
