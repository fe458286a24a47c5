"""What a saved model says of itself beside its weights, and whether it holds together."""

import inspect
from typing import Any, Literal, TypedDict, cast, get_type_hints

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from torch import Tensor

from countsdiff.core.denoiser import with_current_names
from countsdiff.model._data import KEYS, covariate_columns
from countsdiff.model._statistics import GeneStatistics
from countsdiff.model_files import FormatVersion, check_type

# A new version needs a migration from the one before it, and a checkpoint beside those in tests/model/data.
_MIGRATIONS = {
    **dict.fromkeys((1, 2, 3), lambda content: content),  # what changed were weights, see with_later_weights
    4: lambda content: {"learned_from_data": True, "share_hidden": None} | content,
    5: lambda content: content,  # names of weights
}
FORMAT = FormatVersion("countsdiff model", current=6, migrations=_MIGRATIONS)


def with_later_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a model of any version with those that later versions added, at which it predicts as it did."""
    networks = ("denoiser", "averaged.module")
    for name in networks:
        state = with_current_names(state, f"{name}.")  # of version 6
    state = {f"{name}.calibration.slope": torch.tensor(1.0) for name in networks} | state  # of version 2
    for name in networks:
        if (mean := state.get(f"{name}.mean")) is not None:  # of version 4
            later = {"shrinkage": torch.ones_like(mean), "reliability": torch.ones_like(mean)}
            later["calibrated"] = torch.tensor(1.0)
            state = {f"{name}.calibration.{key}": value for key, value in later.items()} | state
    if not any(".factors." in key for key in state):  # of version 3
        for name in networks:
            state |= _without_factors(name, state)
    return state


def _without_factors(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Factors on which nothing loads, and weights 0 of them, for a network of a state dict."""
    if (mean := state.get(f"{name}.mean")) is None:
        return {}
    empty = GeneStatistics.unknown(mean.numel()).factors
    later = {f"{name}.factors.{key}": value for key, value in empty.state_dict().items()}
    if (encode := state.get(f"{name}.backbone.encode.weight")) is not None:
        later[f"{name}.backbone.factors_to_hidden"] = torch.zeros(empty.n_factors, len(encode))
        later[f"{name}.backbone.factors_to_log_mean"] = torch.zeros(empty.n_factors, mean.numel())
    if (summary := state.get(f"{name}.backbone.summary.0.weight")) is not None:
        later[f"{name}.backbone.summary.0.weight"] = torch.cat(
            [summary, torch.zeros(len(summary), empty.n_factors)], dim=1
        )
    return later


class _Counts(TypedDict):
    n_obs: int
    n_vars: int
    column_names: NDArray[Any]


class _JointCounts(TypedDict):
    var_names: dict[str, list[str]]
    column_names: NDArray[Any]


class _Present(TypedDict):
    column_names: NDArray[Any]


class _Categories(TypedDict):
    categorical_mapping: NDArray[Any]
    original_key: str


class _JointCategories(TypedDict):
    mappings: dict[str, NDArray[Any]]
    field_keys: list[str]
    n_cats_per_key: list[int]


class _Numbers(TypedDict):
    columns: NDArray[Any]


class _Nothing(TypedDict):
    pass


class _Field(TypedDict):
    data_registry: dict[str, str | None]
    state_registry: dict[str, Any]
    summary_stats: dict[str, int]


class Registry(TypedDict):
    """What scvi-tools registered of the data, as it made it."""

    scvi_version: str
    model_name: str
    setup_method_name: Literal["setup_anndata", "setup_mudata"]
    setup_args: dict[str, Any]
    field_registries: dict[str, _Field]
    _scvi_uuid: str


class Record(TypedDict):
    """Content of ``model.json``."""

    class_name: str
    versions: dict[str, str]
    weights_sha256: str
    settings: dict[str, Any]
    registry: Registry
    design: pd.DataFrame
    is_trained: bool
    starts_from_reference: bool
    learned_from_data: bool
    share_hidden: float | None
    history: dict[str, pd.DataFrame] | None
    train_indices: NDArray[Any] | None
    validation_indices: NDArray[Any] | None
    test_indices: NDArray[Any] | None


def check_record(content: dict[str, Any], model_class: type) -> Record:
    """Check that a file's content is a record of a model of a class, and consistent.

    Raises
    ------
    TypeError, ValueError, KeyError
        If it is not; the message names the entry.
    """
    check_type(content, Record, "content")
    registry, settings = content["registry"], content["settings"]
    _check_arguments(settings, model_class.__init__, "settings")  # type: ignore[misc]
    args = registry["setup_args"]
    _check_arguments(args, getattr(model_class, registry["setup_method_name"]), "setup_args")
    states = _check_fields(registry["field_registries"], joint="layers" in args)
    _check_covariates(states, args, content["design"])
    for name in ("train_indices", "validation_indices", "test_indices"):
        if content[name] is not None and content[name].dtype.kind not in "iu":
            raise TypeError(f"{name} are of type {content[name].dtype}, not whole numbers")
    return cast(Record, content)


def _check_arguments(values: dict[str, Any], function: Any, name: str) -> None:
    """Check that values are arguments of a function, all but the data, and of the types that it declares."""
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    data = ("self", "adata", "mdata", "registry")
    names = [p.name for p in parameters if p.name not in data and p.kind is not p.VAR_KEYWORD]
    if set(values) != set(names):
        raise ValueError(f"{name} are {', '.join(map(str, values))}, not {', '.join(names)}")
    for each in names:
        check_type(values[each], hints[each], f"{name}.{each}")


def _check_fields(fields: dict[str, _Field], joint: bool) -> dict[str, Any]:
    """Check what was registered, and that it is counted right; return it by field."""
    keys = REGISTRY_KEYS
    schemas: dict[str, Any] = {
        keys.X_KEY: _JointCounts if joint else _Counts,
        keys.BATCH_KEY: _Categories,
        keys.LABELS_KEY: _Categories,
        keys.CAT_COVS_KEY: _JointCategories | _Nothing,
        keys.CONT_COVS_KEY: _Numbers | _Nothing,
        keys.SIZE_FACTOR_KEY: _Nothing,
        **({KEYS.PRESENT: _Present} if joint else {KEYS.MISSING: _Counts}),
    }
    if not set(schemas) - {KEYS.MISSING} <= set(fields) <= set(schemas):
        raise ValueError(f"the fields registered are {', '.join(fields)}")
    for key, field in fields.items():
        state, stats = field["state_registry"], field["summary_stats"]
        check_type(state, schemas[key], f"registry.{key}")
        for name, n in _counted(key, state).items():
            if stats.get(name) != n:
                raise ValueError(f"{name} is {stats.get(name)}, and {n} are listed")
    states = {key: field["state_registry"] for key, field in fields.items()}
    names = states[keys.X_KEY]["column_names"]
    check_type(names.tolist(), list[str], "column_names")
    if joint:
        parts = states[keys.X_KEY]["var_names"]
        joined = [f"{modality}:{name}" for modality, part in parts.items() for name in part]
        if list(names) != joined or len(parts) != states[KEYS.PRESENT]["column_names"].size:
            raise ValueError("the variables of the modalities are not those of the model")
    elif states[keys.X_KEY]["n_vars"] != len(names):
        raise ValueError(f"n_vars is {states[keys.X_KEY]['n_vars']}, and {len(names)} variables are named")
    mappings = [states[key]["categorical_mapping"] for key in (keys.BATCH_KEY, keys.LABELS_KEY)]
    covariates = states[keys.CAT_COVS_KEY]
    if covariates:
        mappings += [covariates["mappings"][key] for key in covariates["field_keys"]]
        if covariates["n_cats_per_key"] != [len(m) for m in mappings[2:]]:
            raise ValueError("n_cats_per_key are not the numbers of categories")
    if not all(pd.Index(names).is_unique for names in (names, *mappings)):
        raise ValueError("variables or categories repeat")
    return states


def _counted(key: str, state: dict[str, Any]) -> dict[str, int]:
    """Numbers that scvi-tools takes from what it registered of a field."""
    if key == REGISTRY_KEYS.X_KEY:
        return {"n_vars": len(state["column_names"])}
    if key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY):
        return {f"n_{key}": len(state["categorical_mapping"])}
    if key == REGISTRY_KEYS.CAT_COVS_KEY:
        return {f"n_{key}": len(state.get("field_keys", ()))}
    if key == REGISTRY_KEYS.CONT_COVS_KEY:
        return {f"n_{key}": len(state.get("columns", ()))}
    return {}


def _check_covariates(states: dict[str, Any], args: dict[str, Any], design: pd.DataFrame) -> None:
    """Check that the covariates registered, and those of cells to generate, are those of the set-up."""
    categorical, continuous = (args[f"{kind}_covariate_keys"] or [] for kind in ("categorical", "continuous"))
    registered = states[REGISTRY_KEYS.CAT_COVS_KEY].get("field_keys", [])
    if categorical != registered or continuous != list(states[REGISTRY_KEYS.CONT_COVS_KEY].get("columns", [])):
        raise ValueError("the covariates registered are not those of setup_args")
    of_categories, of_numbers = covariate_columns(args)
    if set(design.columns) != {*of_categories, *of_numbers} or len(design) == 0:
        raise ValueError(f"design has the columns {', '.join(map(str, design.columns))}, and {len(design)} rows")
    design[of_numbers].to_numpy(np.float32)  # or raises
