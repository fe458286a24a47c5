"""Data registered for a model, and their covariates as they are now: checked against it, and coded anew."""

import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.model.base import BaseModelClass

from countsdiff.model._data import check_columns, obs_of
from countsdiff.model._module import FARTHEST

_UUID = "_scvi_uuid"  # of data that are registered
_REGISTERING = threading.RLock()  # scvi-tools' registry is one for all
_WITHOUT_COLUMN = " Add it, or take the model to these data with load_query_data: the column is then unknown."
_CODED = (  # covariates of which scvi-tools keeps codes or copies in the data
    REGISTRY_KEYS.BATCH_KEY,
    REGISTRY_KEYS.LABELS_KEY,
    REGISTRY_KEYS.CAT_COVS_KEY,
    REGISTRY_KEYS.CONT_COVS_KEY,
)


class CovariateModel(BaseModelClass):
    """A model that knows its cells, and which covariates they had."""

    _adata: AnnData | MuData | None  # scvi-tools' own
    _adata_manager: AnnDataManager | None
    design_: pd.DataFrame  # covariates of training cells
    starts_from_reference_: bool = False  # saved with the model

    def _check_covariates(self, adata: AnnData | MuData) -> None:
        """Check that data have the covariates of the model, and no category that it was not trained on."""
        check_columns(adata, self._setup_args(), _WITHOUT_COLUMN)
        self._check_known_categories(adata)

    def _code_covariates(self, adata: AnnData | MuData) -> None:
        """Check covariates, and code them as they are now if the model has registered these data before."""
        self._check_covariates(adata)
        manager = None if adata.is_view else self.get_anndata_manager(adata)
        if manager is not None:
            code_covariates(manager)

    @contextmanager
    def _registered(self, adata: AnnData | MuData) -> Iterator[AnnDataManager]:
        """Have data registered as those of the model are; those that nobody set up stay as they are.

        scvi-tools would leave its columns in them, and hold on to all that a model ever saw.
        """
        with _REGISTERING, _without_greetings():
            if adata is self._adata or self._is_set_up(adata):
                self._code_covariates(adata)
                self._validate_anndata(adata)
                yield self.get_anndata_manager(adata, required=True)
                return
            before = {place: dict(getattr(adata, place)) for place in ("obs", "obsm", "uns")}
            own = self._adata, self._adata_manager
            try:
                self._code_covariates(adata)
                self._validate_anndata(adata)
                yield self.get_anndata_manager(adata, required=True)
            finally:
                self._adata, self._adata_manager = own  # without data it takes the first it predicts for its own
                if adata.uns.get(_UUID) != before["uns"].get(_UUID):
                    self._release(adata)
                for place, entries in before.items():
                    now = getattr(adata, place)
                    for name in set(now) - set(entries):
                        del now[name]
                    # by their names other models of scvi-tools have their codes there, and would take these for theirs
                    for name in entries:
                        if str(name).startswith(("_scvi", "_countsdiff")):
                            now[name] = entries[name]

    def _is_set_up(self, adata: AnnData | MuData) -> bool:
        """Whether somebody set up these very data: a copy of such data brings their registration along."""
        uuid = adata.uns.get(_UUID)
        stores = (self._setup_adata_manager_store, self._per_instance_manager_store.get(self.id, {}))
        return any(uuid in store and store[uuid].adata is adata for store in stores)

    @classmethod
    def _release(cls, adata: AnnData) -> None:
        """Let go of data that were set up, and of all that their models registered."""
        uuid = adata.uns[_UUID]
        cls._setup_adata_manager_store.pop(uuid, None)
        for model, managers in list(cls._per_instance_manager_store.items()):
            if managers.pop(uuid, None) is not None and not managers:
                del cls._per_instance_manager_store[model]

    def _check_known_categories(self, adata: AnnData | MuData) -> None:
        """Check that cells have categories of covariates that the model was trained with."""
        for column, known in self._known_categories().items():
            values = pd.Index(adata.obs[column].unique())
            unknown = values.difference(pd.Index(known), sort=False)
            if len(unknown):
                raise ValueError(
                    f"{obs_of(adata)}[{column!r}] has {unknown.tolist()[0]!r}, which the model was not trained on; it "
                    f"knows {known.tolist()}. load_query_data takes a model to data of other categories."
                )

    def _known_categories(self) -> dict[str, NDArray[Any]]:
        """Categories of every covariate by its column."""
        args, others = self._setup_args(), self._state(REGISTRY_KEYS.CAT_COVS_KEY).get("mappings", {})
        single = {args[f"{key}_key"]: key for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)}
        known = {
            column: self._state(key)["categorical_mapping"] for column, key in single.items() if column is not None
        }
        return known | others

    def _warn_of_far_covariates(self, adata: AnnData | MuData) -> None:
        """Warn of numbers that are far from all that the model was trained on: another unit, perhaps."""
        mean, spread = (v.cpu().numpy() for v in (self.module.continuous_location, self.module.continuous_scale))
        for name, at, scale in zip(self._setup_args()["continuous_covariate_keys"] or (), mean, spread, strict=True):
            values = adata.obs[name].to_numpy(dtype=np.float64, na_value=np.nan)
            far = np.abs(values - at) > FARTHEST * scale
            if far.any():
                nearest = at + math.copysign(FARTHEST * scale, values[far][0] - at)
                warnings.warn(
                    f"{obs_of(adata)}[{name!r}] holds {values[far][0]:g} for cell {adata.obs_names[far][0]!r}, far "
                    f"from the {at:g} ± {scale:g} of training: taken for {nearest:g} ({far.sum()} such cells).",
                    stacklevel=5,
                )

    def _seen_categories(self, key: str) -> list[Any]:
        """Categories of the batch or the labels that the network knows: those that a cell had in training."""
        known = list(self._state(key)["categorical_mapping"])
        if self.starts_from_reference_:  # whose cells are not there to be asked
            return known
        column = self.design_[self._setup_args()[f"{key}_key"]]
        return [category for category in known if (column == category).any()]


def code_covariates(manager: AnnDataManager) -> None:
    """Code covariates as ``obs`` has them now, in the categories that were registered.

    scvi-tools keeps the codes in the data, where the next set-up of the same data overwrites them, and where they stay
    if a column is changed.
    """
    for field in manager.fields:
        if field.registry_key in _CODED and not field.is_empty:
            state = manager.registry["field_registries"][field.registry_key]["state_registry"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of rare categories, which the set-up told already
                field.transfer_field(state, manager.adata)
    manager.adata.uns["_scvi_manager_uuid"] = manager.id  # others see that codes are not theirs


def covariates_are_current(manager: AnnDataManager) -> bool:
    """Whether covariates were coded as ``obs`` has them now, and in its categories."""

    def coded() -> list[NDArray[np.float64]]:
        return [
            np.array(manager.get_from_registry(key), dtype=np.float64) for key in manager.data_registry if key in _CODED
        ]

    try:
        before = coded()
        code_covariates(manager)
    except (KeyError, ValueError):  # a column is gone, or has categories of its own
        return False
    return all(np.array_equal(*pair, equal_nan=True) for pair in zip(before, coded(), strict=True))


@contextmanager
def _without_greetings() -> Iterator[None]:
    """Without what scvi-tools has to say of data that it sees for the first time."""
    log = logging.getLogger("scvi")
    level = log.level
    log.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        log.setLevel(level)
