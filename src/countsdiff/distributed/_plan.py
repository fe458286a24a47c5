"""What is to be done, and how much of it there is."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from countsdiff.apply import counts_layer
from countsdiff.counts import (
    SPARSE_BELOW,
    CellReader,
    as_row_access,
    check_boolean,
    check_counts,
    check_unique,
    read_rows,
    stored_values,
)
from countsdiff.distributed._chunk import Files, Rows, saved_model
from countsdiff.layers import get_layer
from countsdiff.model.missing import RULES
from countsdiff.store import open_store


@dataclass(frozen=True)
class Plan:
    """A job, and what all chunks have to know of data that each of them sees a part of.

    Attributes
    ----------
    rows
        How to answer for some rows.
    n_obs, chunk_size
        Cells, and cells per chunk.
    n_bytes
        Size of the layers to write, at most.
    """

    rows: Rows
    n_obs: int
    chunk_size: int
    n_bytes: int

    @classmethod
    def make(
        cls,
        store: Path,
        model_dir: Path,
        layer: str | None,
        missing: str | None,
        key_added: str,
        chunk_size: int,
        accelerator: str,
        options: dict[str, Any],
    ) -> "Plan":
        """Look at all of the data once."""
        if missing is not None and not isinstance(missing, str):
            raise TypeError(f"missing is a rule or the name of a layer of the store; got {type(missing).__name__}.")
        if missing == "label_zeros":
            raise ValueError(
                "missing='label_zeros' takes all cells of a label at once, and chunks see a part; name a layer."
            )
        files = Files.of(store)
        model_files = Files.of(model_dir, "model.*")  # a job may keep its log there
        adata = open_store(store)
        model = saved_model(model_files, accelerator)
        layer = counts_layer(model, adata, layer)
        check_unique(adata.obs_names, "cell")  # the random numbers of a cell go by its name
        check_counts(adata, layer)
        model._check_covariates(adata)  # of all cells, not chunk by chunk
        marks = [None if missing in RULES else missing, model.registry_["setup_args"]["missing_layer"]]
        marked = tuple(
            name for name in dict.fromkeys(marks) if name is not None and (name == missing or name in adata.layers)
        )
        known = np.isin(adata.var_names, model.get_var_names())
        if missing is None:
            model._warn_without_marks(adata)
        n_filled, n_missing = _count(get_layer(adata, layer), known, np.isnan)
        for name in marked:
            n_marked, n_known = _count(get_layer(adata, name), known, np.asarray, check_boolean)
            n_filled, n_missing = n_filled + n_marked, n_missing + n_known
        rule = missing
        if missing is None and n_missing == 0:
            rule = "zeros"
            model._warn_of_zeros(adata)
        n_entries = adata.n_obs * adata.n_vars
        as_sparse = (
            hasattr(get_layer(adata, layer), "format") and rule not in RULES and n_filled < SPARSE_BELOW * n_entries
        )
        rows = Rows(
            store=files,
            model=model_files,
            layer=layer,
            marked=marked,
            missing=rule,
            as_sparse=as_sparse,
            key_added=key_added,
            options=options,
            accelerator=accelerator,
        )
        matrices, _ = rows(0, 1)  # one cell shows whether model and options fit, before anything is written
        return cls(
            rows=rows,
            n_obs=adata.n_obs,
            chunk_size=chunk_size,
            n_bytes=len(matrices) * (8 * (n_filled + adata.n_obs) if as_sparse else 4 * n_entries),
        )

    @property
    def starts(self) -> range:
        """First rows of the chunks."""
        return range(0, self.n_obs, self.chunk_size)

    def identity(self) -> dict[str, Any]:
        """The plan as JSON has it: two runs with the same identity write the same files."""
        identity: dict[str, Any] = json.loads(
            json.dumps({**asdict(self), "countsdiff": version("countsdiff")}, default=float)
        )
        return identity

    @property
    def name(self) -> str:
        """Name for a folder where no answer of another plan can lie; workers taken for dead may still be writing."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]


def _count(
    matrix: Any,
    known: NDArray[np.bool_],
    is_missing: Callable[[NDArray], NDArray],
    check: Callable[[Any], None] | None = None,
) -> tuple[int, int]:
    """Entries that are not zero, and missing ones of known genes; every block of rows passes the check."""
    matrix = as_row_access(matrix)
    n_filled = n_missing = 0
    for rows in CellReader(matrix).chunks():
        block = read_rows(matrix, rows)
        if check is not None:
            check(block)
        n_filled += int(np.count_nonzero(stored_values(block)))
        n_missing += int(np.count_nonzero(is_missing(stored_values(block if known.all() else block[:, known]))))
    return n_filled, n_missing
