"""From a file's data to a model that can impute them, and back. Heavy: import in handlers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from countsdiff import CountsDiffImputer, pp
from countsdiff.cli._io import InputError, blame, default_layer
from countsdiff.cli._training import progress_bar
from countsdiff.model._data import CellReader, align_genes, as_row_access, check_counts, get_layer
from countsdiff.model._hold_out import hold_out
from countsdiff.pp._impute import borrow, changed_layers

_NOT_TRAINED_ON = "_countsdiff_not_trained_on"


@dataclass
class Job:
    """A trained model and the data it is to impute.

    Attributes
    ----------
    model
        The model.
    adata
        Data of the file.
    work
        Those genes of `adata` that the model knows, in its order.
    columns
        Their columns in `adata`.
    layer
        Layer of `adata` with the counts; None for ``X``.
    missing_layer
        Layer of `adata` that says which entries are missing, or None.
    held_out
        Entries of `work` that were hidden in training, for the report, and are known again; None for none.
    """

    model: CountsDiffImputer
    adata: AnnData
    work: AnnData
    columns: NDArray[np.intp]
    layer: str | None
    missing_layer: str | None
    held_out: sparse.csr_matrix | None = None

    def impute(self, key_added: str, **kwargs: Any) -> dict[str, Any]:
        """Impute, write the result to ``adata`` in full shape, and return the record of what was done."""
        before = dict(self.work.layers)
        self.model.impute(self.work, key_added=key_added, **kwargs)
        for name, matrix in changed_layers(self.work, before).items():
            self.adata.layers[name] = self._widen(matrix)
        records = self.work.uns["countsdiff"]
        records[key_added]["layer"] = self.layer or "X"
        self.adata.uns["countsdiff"] = records
        return records[key_added]

    def _widen(self, matrix: Any) -> Any:
        """`matrix` in its columns; the counts in all others, NaN where they are missing."""
        if np.array_equal(self.columns, np.arange(self.adata.n_vars)):
            return matrix
        others = np.setdiff1d(np.arange(self.adata.n_vars), self.columns)
        order = np.argsort(np.concatenate([self.columns, others]))
        rest = _with_missing_as(np.nan, self.adata[:, others], self.layer, self.missing_layer)
        n_filled = sum(m.nnz if sparse.issparse(m) else m.size for m in (matrix, rest))
        if sparse.issparse(rest) and 3 * n_filled < self.adata.n_obs * self.adata.n_vars:
            return sparse.hstack([sparse.csr_matrix(matrix), rest], format="csr")[:, order]
        blocks = [m.toarray() if sparse.issparse(m) else m for m in (matrix, rest)]
        return np.concatenate(blocks, axis=1)[:, order]


def train(
    adata: AnnData,
    *,
    layer: str | None,
    missing_layer: str | None,
    batch_key: str | None,
    labels_key: str | None,
    genes: int | None,
    steps: int | None,
    resume: Path | None = None,
    seed: int,
    accelerator: str,
    quiet: bool,
    for_report: bool,
) -> Job:
    """Train a model on `adata`, or on its `genes` most variable genes; with some entries held out `for_report`."""
    layer = layer or default_layer(adata)
    columns = np.arange(adata.n_vars)
    if genes is not None:
        check_counts(adata, layer)
        observed = AnnData(_with_missing_as(0.0, adata, layer, missing_layer))
        columns = np.flatnonzero(pp.highly_variable(observed, genes))
    work = borrow(adata if len(columns) == adata.n_vars else adata[:, columns].copy())
    seen, hidden, held_out = work, missing_layer, None
    if for_report:
        seen, hidden, held_out = _hold_out(work, layer, missing_layer, seed)
    CountsDiffImputer.setup_anndata(seen, layer=layer, missing_layer=hidden, batch_key=batch_key, labels_key=labels_key)
    model = CountsDiffImputer(seen, seed=seed)
    with progress_bar(quiet=quiet) as arguments:
        model.train(steps, seed=seed, accelerator=accelerator, resume=resume, **arguments)
    return Job(model, adata, work, columns, layer, missing_layer, held_out)


def _hold_out(
    work: AnnData, layer: str | None, missing_layer: str | None, seed: int
) -> tuple[AnnData, str, sparse.csr_matrix]:
    """Data that share the matrices of `work` and mark more entries as missing, the layer of the marks, the new ones."""
    check_counts(work, layer)
    missing = None if missing_layer is None else sparse.csr_matrix(get_layer(work, missing_layer), dtype=bool)
    held_out = hold_out(CellReader(as_row_access(get_layer(work, layer)), missing), seed)
    seen = borrow(work)
    name = missing_layer or _NOT_TRAINED_ON
    seen.layers[name] = held_out if missing is None else missing + held_out
    return seen, name, held_out


def load(folder: Path, adata: AnnData, *, layer: str | None, missing_layer: str | None) -> Job:
    """Load a trained model, and put the counts where it looks for them: in its layer, its genes in its order."""
    if not (folder / "model.pt").is_file():
        raise InputError(f"{folder}: there is no saved model in this folder; --save-model writes one.")
    with blame(folder):
        model = CountsDiffImputer.load(str(folder), adata=False)
    registered = model.registry_["setup_args"]
    layer = layer or _present(registered["layer"], adata) or default_layer(adata)
    get_layer(adata, layer)
    names = np.asarray(model.get_var_names())
    known = adata[:, adata.var_names.isin(names)] if adata.var_names.is_unique else adata
    align_genes(known.var_names, names)
    columns = adata.var_names.get_indexer(names)
    work = borrow(adata[:, columns].copy())
    if registered["layer"] is None:
        work.X = get_layer(work, layer)
    else:
        work.layers[registered["layer"]] = get_layer(work, layer)
    missing_layer = missing_layer or _present(registered["missing_layer"], adata)
    return Job(model, adata, work, columns, layer, missing_layer)


def _present(layer: str | None, adata: AnnData) -> str | None:
    return layer if layer in adata.layers else None


def _with_missing_as(value: float, adata: AnnData, layer: str | None, missing_layer: str | None) -> Any:
    """Copy the counts, as float32 and CSR if sparse, with `value` where they are missing."""
    counts = get_layer(adata, layer)
    missing = None if missing_layer is None else sparse.csr_matrix(get_layer(adata, missing_layer), dtype=bool)
    if not sparse.issparse(counts):
        counts = np.array(counts, dtype=np.float32)
        counts[np.isnan(counts)] = value
        if missing is not None:
            counts[missing.toarray()] = value
        return counts
    counts = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    counts.data[np.isnan(counts.data)] = value
    if missing is not None:
        marks = missing.astype(np.float32)
        marks.eliminate_zeros()
        counts -= counts.multiply(marks)
        marks.data[:] = value
        counts += marks
    return counts
