"""What a model reads and writes, the one table of AnnData or those of the modalities of MuData, behind one protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray

from countsdiff.counts import CellReader, as_row_access
from countsdiff.layers import get_layer
from countsdiff.model._modalities import Modalities, join_tables
from countsdiff.model.write import as_arrays, write_layers, write_record


class Layout(Protocol):
    """Where counts come from, and where results go."""

    @property
    def sizes(self) -> list[int]:
        """Numbers of variables that share a size factor."""

    def names(self, legacy_mudata_format: bool) -> Any:
        """Names of the variables; see :meth:`CountsDiffImputer.get_var_names`."""

    def joined(self, data: Any, missing: Any) -> Any:
        """Make one matrix of those that the `missing` argument has for modalities; leave others."""

    def read(self, data: Any, setup_args: Mapping[str, Any]) -> CellReader:
        """Counts of registered data, in the order they have."""

    def write(self, data: Any, key_added: str, results: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Put results into layers, and note how they were made."""

    def arrays(self, data: Any, results: Mapping[str, Any], key_added: str, n_samples: int) -> Any:
        """Results as the caller gets them."""


@dataclass(frozen=True)
class OneTable:
    """The table of an AnnData."""

    var_names: NDArray[np.str_]

    @property
    def sizes(self) -> list[int]:
        """See :class:`Layout`."""
        return [len(self.var_names)]

    def names(self, legacy_mudata_format: bool) -> Any:
        """See :class:`Layout`."""
        return self.var_names

    def joined(self, data: AnnData, missing: Any) -> Any:
        """See :class:`Layout`."""
        return missing

    def read(self, data: AnnData, setup_args: Mapping[str, Any]) -> CellReader:
        """See :class:`Layout`."""
        missing = None if (marks := setup_args.get("missing_layer")) is None else data.layers.get(marks)
        counts = as_row_access(get_layer(data, setup_args.get("layer")))
        return CellReader(counts, None if missing is None else as_row_access(missing))

    def write(self, data: AnnData, key_added: str, results: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """See :class:`Layout`."""
        write_layers(data, key_added, results, record)

    def arrays(self, data: AnnData, results: Mapping[str, Any], key_added: str, n_samples: int) -> Any:
        """See :class:`Layout`."""
        return as_arrays(dict(results), key_added, n_samples)


@dataclass(frozen=True)
class JointTables:
    """The tables of all modalities of a MuData."""

    modalities: Modalities

    @property
    def sizes(self) -> list[int]:
        """See :class:`Layout`."""
        return self.modalities.sizes

    def names(self, legacy_mudata_format: bool) -> Any:
        """See :class:`Layout`."""
        by_modality = {name: np.asarray(names) for name, names in self.modalities.var_names.items()}
        return np.concatenate([*by_modality.values()]) if legacy_mudata_format else by_modality

    def joined(self, data: MuData, missing: Any) -> Any:
        """See :class:`Layout`."""
        return self.modalities.join(data, missing) if isinstance(missing, Mapping) else missing

    def read(self, data: MuData, setup_args: Mapping[str, Any]) -> CellReader:
        """See :class:`Layout`; joined anew, as the tables are what people change."""
        return CellReader(*join_tables(data, self.modalities, setup_args["layers"]))

    def write(self, data: MuData, key_added: str, results: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """See :class:`Layout`."""
        for name in write_record(data, key_added, results, record):
            self.modalities.drop(data, name)
        for name, matrix in results.items():
            self.modalities.write(data, name, matrix)

    def arrays(self, data: MuData, results: Mapping[str, Any], key_added: str, n_samples: int) -> Any:
        """See :class:`Layout`; by modality."""
        parts = {name: dict(self.modalities.parts(data, matrix)) for name, matrix in results.items()}
        return {
            modality: as_arrays({name: part[modality] for name, part in parts.items()}, key_added, n_samples)
            for modality in self.modalities.var_names
        }
