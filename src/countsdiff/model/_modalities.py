"""MuData as one matrix: the counts of all modalities side by side, and results back where they belong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data.fields import BaseAnnDataField, MuDataObsmField

from countsdiff.counts import align_genes, by_position, check_counts, is_on_disk, read_rows
from countsdiff.layers import get_layer
from countsdiff.model._data import KEYS

_COUNTS, _PRESENT = "_countsdiff_counts", "_countsdiff_present"  # in mdata.obsm, beside scvi-tools' own columns


@dataclass(frozen=True)
class Modalities:
    """Names of the variables of every modality, in the model's order."""

    var_names: Mapping[str, list[str]]

    @property
    def sizes(self) -> list[int]:
        """Number of variables of each."""
        return [len(names) for names in self.var_names.values()]

    def split(self, matrix: Any) -> dict[str, Any]:
        """Cut a matrix ``(n_obs, n_vars)`` over all variables into one for each modality."""
        ends = np.cumsum(self.sizes)
        return {
            name: matrix[:, end - size : end] for name, size, end in zip(self.var_names, self.sizes, ends, strict=True)
        }

    def join(self, mdata: MuData, matrices: Mapping[str, Any]) -> sparse.csr_matrix:
        """Matrices of the modalities, each with the rows and columns of its table, side by side in the model's order.

        A modality that is not given, and cells that a modality lacks, are zeros.
        """
        if unknown := [name for name in matrices if name not in self.var_names]:
            raise KeyError(f"The model has no modality {unknown[0]!r}; it has {list(self.var_names)}.")
        blocks = []
        for name, names in self.var_names.items():
            if name not in matrices:
                blocks.append(sparse.csr_matrix((mdata.n_obs, len(names)), dtype=np.float32))
                continue
            table = mdata.mod[name]
            matrix = by_position(matrices[name], table)
            matrix = read_rows(matrix, np.arange(table.n_obs)) if is_on_disk(matrix) else matrix
            if matrix.shape != table.shape:
                raise ValueError(
                    f"The matrix of modality {name!r} has shape {matrix.shape}, the modality {table.shape}."
                )
            block = sparse.csr_matrix(matrix, dtype=np.float32)
            columns = align_genes(table.var_names, np.asarray(names))
            block = block if columns is None else block[:, columns]
            where, rows = _rows(mdata, name)
            spread = sparse.csr_matrix((np.ones(len(rows), np.float32), (where, rows)), (mdata.n_obs, table.n_obs))
            blocks.append(spread @ block)
        return sparse.hstack(blocks, format="csr")

    def write(self, mdata: MuData, key: str, matrix: Any) -> None:
        """Put a result over all variables into layer `key` of every modality.

        A table has no rows for cells that lack its modality: the complete result, for all cells, is then in
        ``mdata.obsm[f"{modality}_{key}"]``.
        """
        for name, block in self.parts(mdata, matrix):
            where, rows = _rows(mdata, name)
            if name in mdata.mod:
                mdata.mod[name].layers[key] = block[where][np.argsort(rows)]
            mdata.obsm.pop(f"{name}_{key}", None)  # of when cells lacked the modality, perhaps
            if len(rows) < mdata.n_obs:
                mdata.obsm[f"{name}_{key}"] = block

    def drop(self, mdata: MuData, key: str) -> None:
        """Undo :meth:`write`."""
        for name in self.var_names:
            if name in mdata.mod:
                mdata.mod[name].layers.pop(key, None)
            mdata.obsm.pop(f"{name}_{key}", None)

    def parts(self, mdata: MuData, matrix: Any) -> Iterator[tuple[str, Any]]:
        """Part of every modality of a matrix over all variables, in the order that its table has them."""
        for name, block in self.split(matrix).items():
            columns = None
            if name in mdata.mod:
                columns = align_genes(mdata.mod[name].var_names, np.asarray(self.var_names[name]))
            yield name, block if columns is None else block[:, np.argsort(columns)]


@dataclass(frozen=True)
class AbsentModalities:
    """Entries of modalities that cells lack, read like a boolean matrix."""

    present: NDArray[np.float32]
    sizes: list[int]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and variables."""
        return len(self.present), sum(self.sizes)

    def __getitem__(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Rows of the matrix."""
        return np.repeat(self.present[rows] == 0, self.sizes, axis=1)


class JointCountsField(BaseAnnDataField):
    """Counts of all modalities, joined in ``mdata.obsm`` when the data are registered.

    Parameters
    ----------
    layers
        Modalities, each with the layer of its counts.
    """

    registry_key = REGISTRY_KEYS.X_KEY
    attr_name = "obsm"
    attr_key = _COUNTS
    is_empty = False

    def __init__(self, layers: Mapping[str, str | None]):
        self.layers = layers

    def validate_field(self, mdata: MuData) -> None:
        """Check the counts of the modalities that there are."""
        for name, layer in _present(mdata, self.layers).items():
            try:
                check_counts(mdata.mod[name], layer, f"mdata[{name!r}]")
            except KeyError as error:
                raise KeyError(f"mdata[{name!r}]: {error.args[0]}") from error

    def register_field(self, mdata: MuData) -> dict[str, Any]:
        """Join the modalities in the order they have."""
        for name in self.layers:
            if name not in mdata.mod:
                raise KeyError(f"mdata has no modality {name!r}; it has {list(mdata.mod)}.")
            if mdata.mod[name].n_obs == 0:
                raise ValueError(f"mdata[{name!r}] has no cells to learn from.")
        self.validate_field(mdata)
        return self._join(mdata, {name: list(mdata.mod[name].var_names) for name in self.layers})

    def transfer_field(self, state_registry: dict, mdata: MuData, **kwargs) -> dict[str, Any]:
        """Join the modalities of other data, which may lack some, in the order of the model."""
        if not _present(mdata, self.layers):
            raise KeyError(f"mdata has no cells of {list(self.layers)}, the modalities of the model.")
        self.validate_field(mdata)
        return self._join(mdata, dict(state_registry["var_names"]))

    def get_summary_stats(self, state_registry: dict) -> dict[str, int]:
        """Return the number of variables."""
        return {"n_vars": len(state_registry["column_names"])}

    def view_state_registry(self, state_registry: dict) -> None:
        """Nothing to show."""

    def _join(self, mdata: MuData, var_names: dict[str, list[str]]) -> dict[str, Any]:
        matrices = {name: get_layer(mdata.mod[name], layer) for name, layer in _present(mdata, self.layers).items()}
        mdata.obsm[_COUNTS] = Modalities(var_names).join(mdata, matrices)
        present = np.zeros((mdata.n_obs, len(var_names)), dtype=np.float32)
        for i, name in enumerate(var_names):
            present[_rows(mdata, name)[0], i] = 1.0
        mdata.obsm[_PRESENT] = present
        flat = [f"{name}:{variable}" for name, names in var_names.items() for variable in names]
        if len(twice := pd.Index(flat)[pd.Index(flat).duplicated()]):
            raise ValueError(f"Two variables would be called {twice[0]!r}, with their modality; rename one.")
        return {"var_names": var_names, "column_names": np.array(flat)}


def _present(mdata: MuData, layers: Mapping[str, str | None]) -> dict[str, str | None]:
    """Those of the modalities of `layers` that some cell has."""
    return {name: layer for name, layer in layers.items() if name in mdata.mod and mdata.mod[name].n_obs > 0}


def present_field() -> MuDataObsmField:
    """Field of which cell has which modality; after :class:`JointCountsField`, which writes it."""
    return MuDataObsmField(KEYS.PRESENT, _PRESENT, correct_data_format=False)


def join_tables(
    mdata: MuData, modalities: Modalities, layers: Mapping[str, str | None]
) -> tuple[sparse.csr_matrix, AbsentModalities]:
    """Counts of registered data as they are now, side by side, and the entries of modalities that cells lack."""
    JointCountsField(layers).transfer_field({"var_names": modalities.var_names}, mdata)
    return mdata.obsm[_COUNTS], AbsentModalities(np.asarray(mdata.obsm[_PRESENT]), modalities.sizes)


def as_mudata(
    matrix: sparse.csr_matrix, obs: pd.DataFrame, modalities: Modalities, layers: Mapping[str, str | None]
) -> MuData:
    """Make data of a matrix over all variables, in ``X`` and the registered layers."""
    tables = {
        name: AnnData(
            block,
            obs=pd.DataFrame(index=obs.index),
            var=pd.DataFrame(index=modalities.var_names[name]),
            layers={} if layers[name] is None else {layers[name]: block.copy()},
        )
        for name, block in modalities.split(matrix).items()
    }
    mdata = MuData(tables)
    for column in obs:
        mdata.obs[column] = obs[column]
    return mdata


def _rows(mdata: MuData, name: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cells of `mdata` that a modality has, and their rows in its table.

    Raises
    ------
    ValueError
        If the table has changed since, in place of the counts of other cells.
    """
    if name not in mdata.mod:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    row = np.asarray(mdata.obsmap[name]).ravel().astype(np.intp)  # counted from 1, 0 for none
    where = np.flatnonzero(row)
    rows, cells = row[where] - 1, mdata.mod[name].obs_names
    if len(rows) != len(cells) or not np.array_equal(cells[rows], mdata.obs_names[where]):
        raise ValueError(f"mdata[{name!r}] has other cells, or another order, than mdata has noted: mdata.update().")
    return where, rows
