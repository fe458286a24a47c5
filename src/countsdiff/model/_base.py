"""What every verb of the model needs: cells checked against the model, run through its network, and written back."""

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import rich.pretty  # noqa: F401  # which scvi-tools takes for loaded when it prints a registry
import torch
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse
from scvi import REGISTRY_KEYS

from countsdiff.arguments import check_whole
from countsdiff.core.guidance import ClassifierFreeGuidance
from countsdiff.core.sampler import SamplerState
from countsdiff.counts import CellReader, align_genes, as_row_access, check_boolean, check_counts
from countsdiff.layers import check_key, check_not_part_on_disk, check_not_read, warn_of_view
from countsdiff.model._covariates import CovariateModel
from countsdiff.model._data import check_is_data, chosen_rows, row_keys
from countsdiff.model._layout import JointTables, Layout, OneTable
from countsdiff.model._loading import CellsInOrder, as_tensor, on_disk
from countsdiff.model._modalities import Modalities
from countsdiff.model._predict import Cells, Predictor
from countsdiff.model.hold_out import NOT_TRAINED_ON
from countsdiff.model.missing import RULES, Task, resolve_missing
from countsdiff.model.request import Request
from countsdiff.model.write import Collector, collect

logger = logging.getLogger("countsdiff")

_MAX_CALIBRATION = 2_000_000  # entries of evenly spaced cells
_MINIBATCH = 128  # of these; scvi-tools' setting would move what calibration draws

_COVARIATES = (
    REGISTRY_KEYS.BATCH_KEY,
    REGISTRY_KEYS.LABELS_KEY,
    REGISTRY_KEYS.CAT_COVS_KEY,
    REGISTRY_KEYS.CONT_COVS_KEY,
    REGISTRY_KEYS.SIZE_FACTOR_KEY,
)


class CellModel(CovariateModel):
    """Base of a model whose module holds an averaged denoiser."""

    is_trained_: bool
    # saved with the model
    learned_from_data_: bool = False  # from the data that it holds, by training or by adapting means
    share_hidden_: float | None = None  # in training; None for any

    def _predict(
        self,
        adata,
        indices,
        missing,
        request: Request,
        guidance_scale: float,
        key_added: str,
        inplace: bool,
        batch_size,
    ):
        self._check_if_trained(warn=False)
        adata = self._adata_or_own(adata)
        if inplace:
            names = self._result_names(request, key_added, missing)
            if adata.is_view:
                warn_of_view(stacklevel=4)
        else:
            check_key(key_added)
            names = request.names(key_added)
        cells = self._cells(adata)
        layout = self._layout()
        missing = layout.joined(adata, missing)
        if missing is None or isinstance(missing, Task) or (isinstance(missing, str) and missing in RULES):
            self._warn_without_marks(adata)
        task = missing if isinstance(missing, Task) else resolve_missing(missing, adata, cells.reader, cells.labels)
        if missing is None and task.rewrite == "zeros":
            self._warn_of_zeros(adata)
        request.check_task(task)
        chosen = chosen_rows(adata.n_obs, indices)
        rows = np.arange(adata.n_obs) if inplace else chosen
        collector = Collector(len(names), as_sparse=inplace and sparse.issparse(cells.reader.counts))
        answers = self._answers(cells, task, request, guidance_scale, rows, np.isin(rows, chosen), batch_size)
        n_rewritten = collect(answers, collector)
        results = dict(zip(names, collector.matrices(), strict=True))
        logger.info("Rewrote %d entries of %d cells × %d genes.", n_rewritten, len(chosen), adata.n_vars)
        if inplace:
            provenance = {
                "model": type(self).__name__,
                "layer": self._read_layers(),
                "n_cells": len(chosen),
                "n_imputed": n_rewritten,
                "guidance_scale": guidance_scale,
                **request.provenance(),
                **task.provenance(),
            }
            layout.write(adata, key_added, results, provenance)
            return None
        return layout.arrays(adata, results, key_added, request.n_samples)

    def _users_marks(self) -> str | None:
        """Layer of missing entries that users know of: not the one that a report made. MuData have none."""
        marks: str | None = self._setup_args().get("missing_layer")
        return None if marks == NOT_TRAINED_ON else marks

    def _warn_without_marks(self, adata: AnnData) -> None:
        """Warn of data without the layer of missing entries: their values, zeros perhaps, would pass for counts."""
        marks = self._users_marks()
        if marks is not None and marks not in adata.layers:
            warnings.warn(
                f"adata.layers has no {marks!r}, which marked missing entries in training: no entry but NaN is taken "
                "for missing.",
                stacklevel=4,
            )

    def _warn_of_zeros(self, adata: AnnData) -> None:
        """Warn where none is marked as missing, in a layer that is there for it: zeros will be rewritten instead."""
        marks = self._users_marks()
        if marks is not None and marks in adata.layers:
            warnings.warn(
                f"No entry of these cells is missing, so that their zeros are rewritten. missing={marks!r} rewrites "
                "missing entries only, even where there are none; say missing='zeros' if zeros are meant.",
                stacklevel=4,
            )

    def _result_names(self, request: Request, key_added: str, missing: Any = None) -> list[str]:
        """Layers that results go to; the model must not read what it writes."""
        check_key(key_added)
        args, names = self._setup_args(), request.names(key_added)
        read = {args.get("layer"), args.get("missing_layer"), *(args.get("layers") or {}).values()}
        if isinstance(missing, Mapping):  # names of layers of modalities, or matrices
            read |= {marks for marks in missing.values() if isinstance(marks, str)}
        elif isinstance(missing, str) and missing not in RULES:
            read.add(missing)
        check_not_read(names, read)
        return names

    def _answers(
        self,
        cells: Cells,
        task: Task,
        request: Request,
        guidance_scale: float = 1.0,
        rows: NDArray[np.intp] | None = None,
        chosen: NDArray[np.bool_] | None = None,
        batch_size: int | None = None,
        callback: Callable[[SamplerState], None] | None = None,
    ) -> Iterator[tuple[NDArray[np.intp], list[NDArray[np.float32]], NDArray[np.bool_]]]:
        """Answers for `rows` (default: all), block by block: positions, matrices, and which entries were rewritten."""
        if batch_size is not None:
            check_whole(1, batch_size=batch_size)
        denoiser = ClassifierFreeGuidance(guidance_scale).wrap(self.module.averaged.module)
        groups = self.module.denoiser.group_sizes
        predictor = Predictor(denoiser, cells, task, request, self.device, callback, groups)
        rows = np.arange(cells.reader.n_obs) if rows is None else rows
        chosen = np.ones(len(rows), dtype=bool) if chosen is None else chosen
        for block in cells.reader.chunks(np.arange(len(rows)), batch_size):
            yield block, *predictor(rows[block], chosen[block])

    def _spread(self, cells: NDArray[np.intp], at_least: int = 100) -> Iterable[dict[str, torch.Tensor]]:
        """Minibatches of as many of the model's own cells as calibration takes, evenly spaced."""
        most = max(_MAX_CALIBRATION // self.summary_stats.n_vars, at_least)
        cells = cells[:: math.ceil(len(cells) / most) or 1]
        if on_disk(self.adata_manager):
            return CellsInOrder(self.adata_manager, cells, _MINIBATCH)
        return self._make_data_loader(self.adata, indices=cells, batch_size=_MINIBATCH)

    def _adata_or_own(self, adata: AnnData | None) -> AnnData:
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("The model was loaded without data; give the data to predict.")
        check_is_data(adata)
        if isinstance(adata, AnnData):
            check_not_part_on_disk(adata)
        return adata

    def _anndata_or_own(self, adata: AnnData | None) -> AnnData:
        adata = self._adata_or_own(adata)
        if not isinstance(adata, AnnData):
            other = "; set up a model of one modality" if isinstance(adata, MuData) else ""
            raise TypeError(f"This takes AnnData, not {type(adata).__name__}{other}.")
        return adata

    def _cells(self, adata: AnnData) -> Cells:
        """Check `adata` against the model and gather what prediction needs."""
        columns = None
        if self._modalities() is None:
            if not isinstance(adata, AnnData):
                raise TypeError("The model is one of AnnData; got MuData: give it one modality, such as mdata['rna'].")
            columns = align_genes(adata.var_names, np.asarray(self.get_var_names()))
            check_counts(adata, self._layer())
            missing_layer = self._setup_args().get("missing_layer")
            if missing_layer is not None and missing_layer in adata.layers:
                check_boolean(as_row_access(adata.layers[missing_layer]), f"adata.layers[{missing_layer!r}]")
        elif not isinstance(adata, MuData):
            raise ValueError(f"The model was set up with MuData of {list(self._state('X')['var_names'])}; got AnnData.")
        with self._registered(adata) as manager:
            tensors = {
                key: as_tensor(key, manager.get_from_registry(key))
                for key in _COVARIATES
                if key in manager.data_registry
            }
            reader = replace(self._reader(adata), columns=columns)
        if adata is not self._adata or self.starts_from_reference_:
            self._warn_of_far_covariates(adata)
        categories, continuous = self.module.covariates(tensors)
        has_labels = self._setup_args().get("labels_key") is not None
        labels = tensors[REGISTRY_KEYS.LABELS_KEY].numpy().ravel().astype(np.intp) if has_labels else None
        return Cells(reader, row_keys(adata.obs_names), categories.cpu(), continuous.cpu(), labels)

    def _reader(self, adata: AnnData | MuData) -> CellReader:
        """Counts of registered data, in the order they have."""
        return self._layout().read(adata, self._setup_args())

    def _layout(self) -> Layout:
        """Where counts come from, and where results go."""
        modalities = self._modalities()
        if modalities is not None:
            return JointTables(modalities)
        return OneTable(self._state(REGISTRY_KEYS.X_KEY)["column_names"])

    def _modalities(self) -> Modalities | None:
        """Variables of every modality; ``None`` for AnnData."""
        var_names = self._state(REGISTRY_KEYS.X_KEY).get("var_names")
        return None if var_names is None else Modalities(var_names)

    def get_var_names(self, legacy_mudata_format: bool = False) -> Any:
        """Names of the variables that the model was set up with, which the data in ``adata`` may have lost since.

        Parameters
        ----------
        legacy_mudata_format
            Names of all modalities in one array, not an array for each modality by its name.
        """
        return self._layout().names(legacy_mudata_format)

    def _setup_args(self) -> dict[str, Any]:
        args: dict[str, Any] = self.registry_["setup_args"]
        return args

    def _read_layers(self) -> str | dict[str, str]:
        """Where the counts are, of each modality where there are several; for the record."""
        layers = self._setup_args().get("layers")
        return self._layer() or "X" if layers is None else {name: layer or "X" for name, layer in layers.items()}

    def _layer(self) -> str | None:
        layer: str | None = self._setup_args().get("layer")
        return layer

    def _state(self, key: str) -> dict[str, Any]:
        """What scvi-tools registered of a field."""
        state: dict[str, Any] = self.registry_["field_registries"][key]["state_registry"]
        return state
