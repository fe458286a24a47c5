from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ._base import (
    Counts,
    Imputer,
    Missing,
    at_own_depth,
    gene_means,
    gene_rates,
    observe,
    pooled_rates,
    size_factors,
)


@dataclass(frozen=True)
class GeneMean(Imputer):
    """The mean of the gene's observed entries, alike for all cells."""

    name: ClassVar[str] = "gene_mean"

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedGeneMean":
        """Average every gene; see :class:`Imputer`."""
        return _FittedGeneMean(gene_means(*observe(counts, missing)))


@dataclass(frozen=True)
class _FittedGeneMean:
    means: NDArray[np.float32]

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        counts, _ = observe(counts, missing, n_vars=len(self.means))
        return np.tile(self.means, (len(counts), 1))


@dataclass(frozen=True)
class SizeFactorMean(Imputer):
    """The rates of all cells, at the cell's own depth: what a model of depth alone can do."""

    name: ClassVar[str] = "size_factor_mean"

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedSizeFactorMean":
        """Take the rate of every gene; see :class:`Imputer`."""
        counts, observed = observe(counts, missing)
        size = size_factors(counts, observed, gene_means(counts, observed))
        return _FittedSizeFactorMean(gene_rates(counts, observed, size))


@dataclass(frozen=True)
class _FittedSizeFactorMean:
    rates: NDArray[np.float32]

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        counts, observed = observe(counts, missing, n_vars=len(self.rates))
        return at_own_depth(np.tile(self.rates, (len(counts), 1)), counts, observed)


@dataclass(frozen=True)
class LabelMean(Imputer):
    """The rates of all cells with the same label, at the cell's own depth.

    Hard to beat where the labels explain the cells, and flattered where they were derived from the hidden
    entries. Cells of a label that was not fitted get the rates of all cells.
    """

    name: ClassVar[str] = "label_mean"

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedLabelMean":
        """Take the rates of every label; see :class:`Imputer`.

        Raises
        ------
        ValueError
            If there is not one label per cell.
        """
        counts, observed = observe(counts, missing)
        names, codes = np.unique(_one_per_cell(labels, len(counts)), return_inverse=True)
        membership = (np.ones(len(counts), dtype=np.float32), (codes, np.arange(len(counts))))
        pools = sparse.csr_matrix(membership, shape=(len(names), len(counts)))
        size = size_factors(counts, observed, gene_means(counts, observed))
        rates = pooled_rates(pools, counts, observed, size), gene_rates(counts, observed, size)
        return _FittedLabelMean(names, np.vstack(rates))


@dataclass(frozen=True)
class _FittedLabelMean:
    names: NDArray[np.str_]  # sorted
    rates: NDArray[np.float32]  # of each of them, and of all cells

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        counts, observed = observe(counts, missing, n_vars=self.rates.shape[1])
        cells = _one_per_cell(labels, len(counts))
        row = np.where(np.isin(cells, self.names), np.searchsorted(self.names, cells), len(self.names))
        return at_own_depth(self.rates[row], counts, observed)


def _one_per_cell(labels: ArrayLike | None, n_obs: int) -> NDArray[np.str_]:
    if labels is None or np.shape(labels) != (n_obs,):
        got = "none" if labels is None else f"shape {np.shape(labels)}"
        raise ValueError(f"label_mean needs labels, one for each of the {n_obs} cells; got {got}")
    return np.asarray(labels, dtype=str)
