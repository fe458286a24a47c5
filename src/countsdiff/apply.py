"""A trained model put to work on data that may hold other genes, in another order, under another name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.counts import SPARSE_BELOW, align_genes, check_unique
from countsdiff.layers import borrow, check_not_read, default_layer, get_layer
from countsdiff.matrix import to_dense
from countsdiff.model import CountsDiffImputer
from countsdiff.model.request import Request
from countsdiff.model.write import write_layers


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
        check_not_read(written(key_added, kwargs), (self.layer, self.missing_layer))
        self.model.impute(self.work, key_added=key_added, **kwargs)
        record = {**self.work.uns["countsdiff"][key_added], "layer": self.layer or "X"}
        layers = {name: self.work.layers[name] for name in record["layers"]}
        write_layers(self.adata, key_added, self._widened(layers, std=f"{key_added}_std"), record)
        return record

    def _widened(self, layers: dict[str, Any], std: str) -> dict[str, Any]:
        """`layers` in their columns; the counts in all others, NaN where they are missing, which do not spread."""
        if np.array_equal(self.columns, np.arange(self.adata.n_vars)):
            return layers
        others = np.setdiff1d(np.arange(self.adata.n_vars), self.columns)
        order = np.argsort(np.concatenate([self.columns, others]))
        rest = with_missing_as(np.nan, self.adata[:, others], self.layer, self.missing_layer)
        no_spread = rest * np.float32(0.0)
        return {name: _beside(matrix, no_spread if name == std else rest)[:, order] for name, matrix in layers.items()}


def _beside(left: Any, right: Any) -> Any:
    """Two matrices side by side; CSR if the right one is sparse, and few entries of both are not zero."""
    n_filled = sum(m.nnz if sparse.issparse(m) else m.size for m in (left, right))
    if sparse.issparse(right) and n_filled < SPARSE_BELOW * left.shape[0] * (left.shape[1] + right.shape[1]):
        return sparse.hstack([sparse.csr_matrix(left), right], format="csr")
    return np.concatenate([to_dense(left), to_dense(right)], axis=1)


def written(key_added: str, options: Mapping[str, Any]) -> list[str]:
    """Layers that :meth:`~countsdiff.CountsDiffImputer.impute` writes, asked with these options."""
    known = {name: options[name] for name in ("output", "n_samples", "return_std", "interval") if name in options}
    return Request(**known).names(key_added)


def load_model(folder: Path, accelerator: str = "auto") -> CountsDiffImputer:
    """Load a model that can be put to work.

    Raises
    ------
    ValueError
        Naming the folder, if there is none in it, or one that is damaged, not trained, or of several modalities.
    """
    model = CountsDiffImputer.load(folder, adata=False, accelerator=accelerator)
    if "layers" in model.registry_["setup_args"]:
        raise ValueError(f"{folder}: this is a model of several modalities; impute MuData with it in Python.")
    if not model.is_trained:
        raise ValueError(f"{folder}: this model was saved before it was trained; train it, or another one.")
    return model


def counts_layer(model: CountsDiffImputer, adata: AnnData, layer: str | None) -> str | None:
    """Layer with the counts: the one named, or else that of the model, or else where they are if nobody says."""
    return layer or _present(model.registry_["setup_args"]["layer"], adata) or default_layer(adata)


def apply(model: CountsDiffImputer, adata: AnnData, *, layer: str | None, missing_layer: str | None) -> Job:
    """Put the counts where a trained model looks for them: in its layer, its genes in its order."""
    registered = model.registry_["setup_args"]
    layer = counts_layer(model, adata, layer)
    get_layer(adata, layer)
    names = np.asarray(model.get_var_names())
    check_unique(adata.var_names, "gene")
    align_genes(adata.var_names[adata.var_names.isin(names)], names)
    columns = adata.var_names.get_indexer(names)
    in_order = np.array_equal(columns, np.arange(adata.n_vars))
    work = borrow(adata if in_order else adata[:, columns].copy())
    if registered["layer"] is None:
        work.X = get_layer(work, layer)
    else:
        work.layers[registered["layer"]] = get_layer(work, layer)
    missing_layer = missing_layer or _present(registered["missing_layer"], adata)
    return Job(model, adata, work, columns, layer, missing_layer)


def _present(layer: str | None, adata: AnnData) -> str | None:
    return layer if layer in adata.layers else None


def with_missing_as(value: float, adata: AnnData, layer: str | None, missing_layer: str | None) -> Any:
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
