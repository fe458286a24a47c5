"""What scvi-tools' users ask of every model: normalised expression, and replicates of their data."""

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from countsdiff.core.sampler import SamplerConfig
from countsdiff.model._base import CellModel
from countsdiff.model._data import chosen_rows, is_single
from countsdiff.model._missing import DENOISE
from countsdiff.model._request import Request
from countsdiff.model._write import collect

if TYPE_CHECKING:
    from sparse import GCXS


class ExpressionModel(CellModel):
    """Normalised expression and posterior predictive samples, with scvi-tools' arguments."""

    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | Sequence[str | int] | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        seed: int = 0,
    ) -> NDArray[np.float32] | pd.DataFrame:
        """Expression of every cell given all of its counts, at a common depth.

        Parameters
        ----------
        adata
            Data with the genes the model was trained on, in any order. Default: the training data.
        indices
            Cells wanted. Default: all.
        transform_batch
            Batch to assume for the cells instead of their own; predictions for several batches are averaged. The counts
            are used as evidence unchanged.
        gene_list
            Genes wanted. Default: all, in the order of `adata`.
        library_size
            Sum over all genes to which every cell is scaled; ``"latent"`` for the cell's own depth.
        n_samples
            1: posterior means; more: draws of expression from its posterior, where the head knows one (``"gamma"``).
        batch_size
            Cells read at a time; results do not depend on it.
        return_mean
            Average the draws.
        return_numpy
            Return an array. Default: only where draws are not averaged.
        seed
            Seed of the draws.

        Returns
        -------
        Data frame or array ``(n_obs, n_genes)``, or an array ``(n_samples, n_obs, n_genes)`` of draws.

        Raises
        ------
        ValueError
            If a gene or batch is unknown.
        """
        request = Request("rate" if n_samples > 1 else "mean", n_samples, SamplerConfig(), seed)
        latent = isinstance(library_size, str) and library_size == "latent"
        if not latent and not (isinstance(library_size, numbers.Real) and 0.0 < library_size < math.inf):
            raise ValueError(f"library_size is positive and finite, or 'latent'; got {library_size!r}.")
        adata, batches = self._anndata_or_own(adata), self._batch_codes(transform_batch)
        cells, columns = _positions(adata, indices, gene_list)
        rates, totals = self._replicates(adata, cells, columns, request, batches, batch_size)
        if not latent:
            rates *= library_size / totals
        expression = rates.mean(0) if return_mean or n_samples == 1 else rates
        if expression.ndim == 3 and return_numpy is False:
            raise ValueError("A data frame has no room for several draws; leave return_numpy, or set return_mean=True.")
        if return_numpy or expression.ndim == 3:
            return expression
        return pd.DataFrame(expression, index=adata.obs_names[cells], columns=adata.var_names[columns])

    def posterior_predictive_sample(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | Sequence[str | int] | None = None,
        n_samples: int = 1,
        gene_list: Sequence[str] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> "GCXS":
        """Fresh replicates of every cell, for :class:`scvi.criticism.PosteriorPredictiveCheck`.

        The check takes dense counts only, as it does of scvi-tools' own models: ``adata.X = adata.X.toarray()``.

        Parameters
        ----------
        adata, indices, gene_list, batch_size, seed
            As for :meth:`get_normalized_expression`.
        transform_batch
            Batch to assume for the cells instead of their own.
        n_samples
            Number of replicates.

        Returns
        -------
        Whole numbers, sparse, ``(n_obs, n_genes)`` or, of several samples, ``(n_obs, n_genes, n_samples)``.

        Raises
        ------
        ValueError
            If a gene or batch is unknown, or there are several batches.
        """
        import sparse as pydata_sparse  # comes with scvi-tools, and takes a second

        batches = self._batch_codes(transform_batch)
        if len(batches) > 1:
            raise ValueError(f"A replicate belongs to one batch; transform_batch names {len(batches)}.")
        request = Request("sample", n_samples, SamplerConfig(), seed)
        adata = self._anndata_or_own(adata)
        draws, _ = self._replicates(adata, *_positions(adata, indices, gene_list), request, batches, batch_size)
        draws = np.moveaxis(draws, 0, 2)
        return pydata_sparse.GCXS.from_numpy(draws[:, :, 0] if n_samples == 1 else draws)

    def _replicates(
        self,
        adata: AnnData,
        rows: NDArray[np.intp],
        columns: NDArray[np.intp],
        request: Request,
        batches: list[int | None],
        batch_size: int | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answers for some cells and genes, all counts being evidence, ``(n_samples, n_obs, n_genes)``.

        Also the sums over all genes, with one column.
        """
        self._check_if_trained(warn=False)
        cells = self._cells(adata)
        values = np.zeros((request.n_samples, len(rows), len(columns)), dtype=np.float32)
        totals = np.zeros((request.n_samples, len(rows), 1), dtype=np.float32)
        for code in batches:
            categories = cells.categories.clone()
            if code is not None:
                categories[:, 0] = code
            asked, added = replace(cells, categories=categories), _Added(values, totals, columns)
            collect(self._answers(asked, DENOISE, request, rows=rows, batch_size=batch_size), added)
        values /= len(batches)
        totals /= len(batches)
        return values, totals

    def _batch_codes(self, batches: Any) -> list[int | None]:
        """Codes of named batches; ``None`` for a cell's own."""
        if batches is None:
            return [None]
        codes = list(self._state(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"])
        if len(codes) < 2:
            raise ValueError(f"transform_batch={batches!r}: the model knows no batches (batch_key of setup_anndata).")
        known = self._seen_categories(REGISTRY_KEYS.BATCH_KEY)
        wanted = [batches] if is_single(batches) else list(batches)
        unknown = [batch for batch in wanted if batch not in known]
        if not wanted:
            raise ValueError("transform_batch names no batch; leave it out for each cell's own.")
        if unknown:
            raise ValueError(f"Batch {unknown[0]!r} is unknown to the model; it knows {known}.")
        return [codes.index(batch) for batch in wanted]


class _Added:
    """Adds answers, block by block, to `values` of some genes and to `totals` of all; both have the draws first."""

    def __init__(self, values: NDArray[np.float32], totals: NDArray[np.float32], columns: NDArray[np.intp]):
        self.values, self.totals, self.columns = values, totals, columns
        self._seen = 0

    def add(self, matrices: Iterable[NDArray[np.float32]]) -> None:
        """Add the next cells."""
        for values, totals, matrix in zip(self.values, self.totals, matrices, strict=True):
            block = slice(self._seen, self._seen + len(matrix))
            values[block] += matrix[:, self.columns]
            totals[block] += matrix.sum(axis=1, keepdims=True)
        self._seen = block.stop


def _positions(
    adata: AnnData, indices: Any, gene_list: Sequence[str] | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the cells and genes wanted."""
    rows = chosen_rows(adata.n_obs, indices)
    if gene_list is None:
        return rows, np.arange(adata.n_vars)
    genes = [gene_list] if isinstance(gene_list, str) else list(gene_list)
    columns = adata.var_names.get_indexer(pd.Index(genes))
    if (columns < 0).any():
        raise ValueError(
            f"gene_list names genes, and {genes[int(np.argmin(columns))]!r} is none of the data; a mask has names: "
            "adata.var_names[mask]."
        )
    return rows, columns
