"""What scvi-tools' users ask of every model: normalised expression, and replicates of their data."""

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from countsdiff.core.sampler import SamplerConfig
from countsdiff.model._base import CellModel
from countsdiff.model._data import chosen_rows, is_single
from countsdiff.model._modalities import Modalities
from countsdiff.model._predict import Cells
from countsdiff.model.missing import DENOISE
from countsdiff.model.request import Request
from countsdiff.model.write import collect

if TYPE_CHECKING:
    from sparse import GCXS

Expression: TypeAlias = NDArray[np.float32] | pd.DataFrame
_ONLY = ""  # name of the table of AnnData


class ExpressionModel(CellModel):
    """Normalised expression and posterior predictive samples, with scvi-tools' arguments."""

    def get_normalized_expression(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: str | int | Sequence[str | int] | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        seed: int = 0,
    ) -> Expression | dict[str, Expression]:
        """Expression of every cell given all of its counts, at a common depth.

        Parameters
        ----------
        adata
            Data with the genes the model was trained on, in any order. Default: the training data.
        indices
            Cells wanted. Default: all.
        transform_batch
            Batch to assume for the cells instead of their own; the expression in several batches is averaged. The
            counts are used as evidence unchanged.
        gene_list
            Genes wanted, or variables of any modality. Default: all, in the order of `adata`, or of the modalities of
            :meth:`get_var_names`.
        library_size
            Sum over all genes, or over all variables of a modality, to which every cell is scaled; ``"latent"`` for the
            cell's own depth.
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
        Data frame or array ``(n_obs, n_genes)``, or an array ``(n_samples, n_obs, n_genes)`` of draws; of MuData a
        dictionary of these, one for each modality of which variables are wanted.

        Raises
        ------
        ValueError
            If a gene or batch is unknown.
        """
        request = Request("rate" if n_samples > 1 else "mean", n_samples, SamplerConfig(), seed)
        latent = isinstance(library_size, str) and library_size == "latent"
        if not latent and not (isinstance(library_size, numbers.Real) and 0.0 < library_size < math.inf):
            raise ValueError(f"library_size is positive and finite, or 'latent'; got {library_size!r}.")
        averaged = return_mean or n_samples == 1
        if return_numpy is False and not averaged:
            raise ValueError("A data frame has no room for several draws; leave return_numpy, or set return_mean=True.")
        self._check_if_trained(warn=False)
        adata, batches = self._adata_or_own(adata), self._batch_codes(transform_batch)
        tables = self._tables(adata)
        rows, columns = chosen_rows(adata.n_obs, indices), _columns(tables, gene_list)
        cells = self._cells(adata)
        sums: dict[str, Any] = dict.fromkeys(columns, 0.0)
        for code in batches:
            replicates = self._replicates(cells, rows, tables, columns, request, code, batch_size)
            for name, rates in replicates.values.items():
                sums[name] += rates if latent else rates * (library_size / replicates.totals[name])
        expression: dict[str, Expression] = {}
        for name, rates in sums.items():
            rates /= len(batches)
            expression[name] = rates.mean(0) if averaged else rates
            if averaged and not return_numpy:
                variables = pd.Index(tables.var_names[name])[columns[name]]
                expression[name] = pd.DataFrame(expression[name], index=adata.obs_names[rows], columns=variables)
        return expression if isinstance(adata, MuData) else expression[_ONLY]

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

        self._check_if_trained(warn=False)
        batches = self._batch_codes(transform_batch)
        if len(batches) > 1:
            raise ValueError(f"A replicate belongs to one batch; transform_batch names {len(batches)}.")
        request = Request("sample", n_samples, SamplerConfig(), seed)
        adata = self._anndata_or_own(adata)
        tables = self._tables(adata)
        rows, columns = chosen_rows(adata.n_obs, indices), _columns(tables, gene_list)
        cells = self._cells(adata)
        replicates = self._replicates(cells, rows, tables, columns, request, batches[0], batch_size)
        draws = np.moveaxis(replicates.values[_ONLY], 0, 2)
        return pydata_sparse.GCXS.from_numpy(draws[:, :, 0] if n_samples == 1 else draws)

    def _tables(self, adata: AnnData | MuData) -> Modalities:
        """Tables that answers are cut into: one for each modality, or the only one."""
        return self._modalities() or Modalities({_ONLY: list(adata.var_names)})

    def _replicates(
        self,
        cells: Cells,
        rows: NDArray[np.intp],
        tables: Modalities,
        columns: dict[str, NDArray[np.intp]],
        request: Request,
        batch: int | None,
        batch_size: int | None,
    ) -> "_Replicates":
        """Answers for some cells and variables, all counts being evidence, in a batch or each cell's own."""
        if batch is not None:
            categories = cells.categories.clone()
            categories[:, 0] = batch
            cells = replace(cells, categories=categories)
        replicates = _Replicates(tables, columns, request.n_samples, len(rows))
        collect(self._answers(cells, DENOISE, request, rows=rows, batch_size=batch_size), replicates)
        return replicates

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


class _Replicates:
    """Answers, which come block by block.

    Parameters
    ----------
    tables
        Tables that answers are cut into.
    columns
        Variables wanted of some of them, by their names.
    n_samples, n_obs
        Numbers of draws and of cells.

    Attributes
    ----------
    values, totals
        Of every table wanted: answers for its variables that are, ``(n_samples, n_obs, n)``, and sums over all of its
        variables, ``(n_samples, n_obs, 1)``.
    """

    def __init__(self, tables: Modalities, columns: dict[str, NDArray[np.intp]], n_samples: int, n_obs: int):
        self.tables, self.columns = tables, columns
        shape = n_samples, n_obs
        self.values = {name: np.zeros((*shape, len(some)), dtype=np.float32) for name, some in columns.items()}
        self.totals = {name: np.zeros((*shape, 1), dtype=np.float32) for name in columns}
        self._seen = 0

    def add(self, matrices: Iterable[NDArray[np.float32]]) -> None:
        """Add the next cells."""
        n_obs = 0
        for draw, matrix in enumerate(matrices):
            n_obs, parts = len(matrix), self.tables.split(matrix)
            block = slice(self._seen, self._seen + n_obs)
            for name, columns in self.columns.items():
                self.values[name][draw, block] = parts[name][:, columns]
                self.totals[name][draw, block] = parts[name].sum(axis=1, keepdims=True)
        self._seen += n_obs


def _columns(tables: Modalities, gene_list: Sequence[str] | None) -> dict[str, NDArray[np.intp]]:
    """Columns of the variables wanted of every table that has some of them."""
    if gene_list is None:
        return {name: np.arange(len(names)) for name, names in tables.var_names.items()}
    genes = pd.Index([gene_list] if isinstance(gene_list, str) else list(gene_list))
    found = {name: pd.Index(names).get_indexer(genes) for name, names in tables.var_names.items()}
    nowhere = np.all([columns < 0 for columns in found.values()], axis=0)
    if nowhere.any():
        raise ValueError(
            f"gene_list names genes, and {genes[int(np.argmax(nowhere))]!r} is none of the data; a mask has names: "
            "adata.var_names[mask]."
        )
    chosen = {name: columns[columns >= 0] for name, columns in found.items()}
    return {name: columns for name, columns in chosen.items() if len(columns) > 0}
