"""Puts results where scanpy users look for them: layers, with their provenance in ``uns``."""

import math
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.counts import SPARSE_BELOW
from countsdiff.layers import outdated_layers
from countsdiff.matrix import to_dense


class Sink(Protocol):
    """Takes answers, block by block."""

    def add(self, matrices: Iterable[NDArray[np.float32]]) -> None:
        """Add the next rows of every matrix."""
        ...


def collect(answers: Iterable[tuple[Any, Iterable[NDArray[np.float32]], NDArray[np.bool_]]], sink: Sink) -> int:
    """Put answers, block by block, into `sink`; return the number of entries that were rewritten."""
    n_rewritten = 0
    for _, matrices, rewritten in answers:
        n_rewritten += int(rewritten.sum())
        sink.add(matrices)
    return n_rewritten


class Collector:
    """Collects blocks of rows of several matrices, sparse where that is smaller and the input was.

    Parameters
    ----------
    n_matrices
        Number of matrices.
    as_sparse
        Whether matrices of which few entries are not zero come back as CSR.
    """

    def __init__(self, n_matrices: int, as_sparse: bool):
        self.as_sparse = as_sparse
        self._blocks: list[list[Any]] = [[] for _ in range(n_matrices)]

    def add(self, matrices: Iterable[NDArray[np.float32]]) -> None:
        """Add the next rows of every matrix."""
        for blocks, matrix in zip(self._blocks, matrices, strict=True):
            blocks.append(sparse.csr_matrix(matrix) if self.as_sparse and _is_sparse([matrix]) else matrix)

    def matrices(self) -> list[Any]:
        """All rows of every matrix: CSR if so wanted and few of all its entries are not zero, else dense."""
        return [
            sparse.vstack([sparse.csr_matrix(b) for b in blocks], format="csr")
            if self.as_sparse and _is_sparse(blocks)
            else np.concatenate([to_dense(block) for block in blocks])
            for blocks in self._blocks
        ]


def _is_sparse(blocks: list[Any]) -> bool:
    """Whether few of the entries of all blocks together are not zero."""
    stored = sum(block.nnz if sparse.issparse(block) else np.count_nonzero(block) for block in blocks)
    return bool(stored < SPARSE_BELOW * sum(math.prod(block.shape) for block in blocks))


def as_arrays(
    results: dict[str, NDArray[np.float32]], key: str, n_samples: int
) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
    """Results as the caller gets them: samples stacked first, and a bare array if nothing else was asked for."""
    if n_samples > 1:
        results = {key: np.stack([results.pop(f"{key}_{i}") for i in range(n_samples)]), **results}
    return results[key] if len(results) == 1 else results


def write_layers(adata: AnnData, key_added: str, layers: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Add `layers`, and in ``adata.uns["countsdiff"][key_added]`` how they were made, in place of an earlier result."""
    for name in write_record(adata, key_added, layers, record):
        adata.layers.pop(name, None)
    for name, matrix in layers.items():
        adata.layers[name] = matrix


def write_record(data: AnnData | MuData, key_added: str, names: Iterable[str], record: Mapping[str, Any]) -> list[str]:
    """Note in ``data.uns["countsdiff"][key_added]`` how layers were made; return those of an earlier result to drop.

    Intervals of what was imputed before would pass for those of what was imputed now, and there is one record of both.
    """
    records = dict(data.uns.get("countsdiff", {}))
    record = {"countsdiff_version": version("countsdiff"), **record, "layers": list(names)}
    dropped = outdated_layers(records, key_added, record)
    if dropped:
        warnings.warn(
            f"Removed {', '.join(dropped)}, of an earlier result named {key_added!r}; another key_added keeps both.",
            stacklevel=2,
        )
    data.uns["countsdiff"] = {**records, key_added: record}
    return dropped
