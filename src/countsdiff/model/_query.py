"""Query data in the shape of a reference: its columns of ``obs``, its variables in its order."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.counts import as_row_access, check_unique, is_on_disk, read_rows
from countsdiff.layers import get_layer
from countsdiff.model._data import covariate_columns

logger = logging.getLogger("countsdiff")

UNKNOWN = "unknown"  # category of cells of which a covariate is not known


def unknown_columns(adata: AnnData | MuData, setup_args: dict[str, Any]) -> dict[str, Any]:
    """Registered columns that ``adata.obs`` lacks, with the values of cells of which nothing is known."""
    missing = {
        column: value
        for columns, value in zip(covariate_columns(setup_args), (UNKNOWN, np.nan), strict=True)
        for column in columns
        if column not in adata.obs
    }
    if missing:
        warnings.warn(f"adata.obs lacks {list(missing)}: taken for unknown in all cells.", stacklevel=3)
    return missing


def positions_of(table: AnnData, names: pd.Index, what: str) -> NDArray[np.intp]:
    """Where the variables of the reference are in a table, negative where they are not."""
    check_unique(table.var_names, "gene")
    positions = table.var_names.get_indexer(names)
    n_absent = int((positions < 0).sum())
    if n_absent == len(names):
        raise ValueError(
            f"{what} share none of the {len(names)} genes of the reference, such as {str(names[0])!r}; they have "
            f"genes such as {str(table.var_names[0])!r}. Are they named alike, or cells and genes swapped?"
        )
    n_extra = table.n_vars - (len(names) - n_absent)
    if n_extra > 0:
        warnings.warn(
            f"{n_extra} of the {table.n_vars} genes are unknown to the reference, and left out.", stacklevel=3
        )
    if n_absent > 0:
        logger.info("%d of the %d genes of the reference are missing.", n_absent, len(names))
    return positions


def in_order(positions: NDArray[np.intp], table: AnnData) -> bool:
    """Whether the variables of a table are those of the reference, in its order."""
    return len(positions) == table.n_vars and bool((positions == np.arange(table.n_vars)).all())


def take_variables(
    table: AnnData, names: pd.Index, positions: NDArray[np.intp], layer: str | None, missing_layer: str | None = None
) -> AnnData:
    """Counts, and marks of missing ones, of these variables; NaN where absent."""
    counts = _take_columns(get_layer(table, layer), positions, np.nan)
    layers = {} if layer is None else {layer: counts}
    if missing_layer is not None:
        marks = table.layers.get(missing_layer, sparse.csr_matrix(table.shape, dtype=bool))
        layers[missing_layer] = _take_columns(marks, positions, 0.0).astype(bool)
    return AnnData(
        counts if layer is None else None,
        obs=table.obs,
        var=pd.DataFrame(index=names),
        obsm=dict(table.obsm),
        uns=unregistered(table.uns),
        layers=layers,
    )


def unregistered(entries: Mapping[str, Any]) -> dict[str, Any]:
    """What data hold by name, but for their registration, which belongs to them."""
    return {key: value for key, value in entries.items() if not key.startswith(("_scvi", "_countsdiff"))}


def _take_columns(matrix: Any, positions: NDArray[np.intp], absent: float) -> Any:
    """Columns of a matrix as float32, in memory, filled with `absent` where the position is negative."""
    there = positions >= 0
    if is_on_disk(matrix):
        matrix = read_rows(as_row_access(matrix), np.arange(matrix.shape[0]))
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
        taken = np.full((matrix.shape[0], len(positions)), absent, dtype=np.float32)
        taken[:, there] = matrix[:, positions[there]]
        return taken
    found = sparse.csr_matrix(as_row_access(matrix)[:, positions[there]], dtype=np.float32)
    if there.all():
        return found
    n_obs, n_absent = matrix.shape[0], int((~there).sum())
    filled = sparse.csr_matrix((n_obs, n_absent), dtype=np.float32)
    if absent != 0.0:  # every entry stored
        rows = np.arange(n_obs + 1, dtype=np.int64) * n_absent
        columns = np.tile(np.arange(n_absent, dtype=np.int32), n_obs)
        filled = sparse.csr_matrix((np.full(n_obs * n_absent, absent, dtype=np.float32), columns, rows), filled.shape)
    order = np.argsort(np.concatenate([np.flatnonzero(there), np.flatnonzero(~there)]))
    return sparse.hstack([found, filled], format="csr", dtype=np.float32)[:, order]
