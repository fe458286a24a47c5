from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from ._base import Counts, Missing, at_own_depth, gene_means, gene_rates, observe, pooled_rates, size_factors


@dataclass(frozen=True)
class GeneMean:
    """The mean of the gene's observed entries, alike for all cells."""

    name: ClassVar[str] = "gene_mean"

    def impute(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> Counts:
        """Predict every entry; see :class:`Imputer`."""
        counts, observed = observe(counts, missing)
        return np.tile(gene_means(counts, observed), (len(counts), 1))


@dataclass(frozen=True)
class SizeFactorMean:
    """The rates of all cells, at the cell's own depth: what a model of depth alone can do."""

    name: ClassVar[str] = "size_factor_mean"

    def impute(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> Counts:
        """Predict every entry; see :class:`Imputer`."""
        counts, observed = observe(counts, missing)
        size = size_factors(counts, observed)
        rates = np.tile(gene_rates(counts, observed, size), (len(counts), 1))
        return at_own_depth(rates, counts, observed)


@dataclass(frozen=True)
class LabelMean:
    """The rates of all cells with the same label, at the cell's own depth.

    Hard to beat where the labels explain the cells, and flattered where they were derived from the hidden
    entries.
    """

    name: ClassVar[str] = "label_mean"

    def impute(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> Counts:
        """Predict every entry; see :class:`Imputer`.

        Raises
        ------
        ValueError
            If there is not one label per cell.
        """
        counts, observed = observe(counts, missing)
        n_obs = len(counts)
        if labels is None or np.shape(labels) != (n_obs,):
            got = "none" if labels is None else f"shape {np.shape(labels)}"
            raise ValueError(f"label_mean needs labels, one for each of the {n_obs} cells; got {got}")
        names, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
        membership = (np.ones(n_obs, dtype=np.float32), (codes, np.arange(n_obs)))
        pools = sparse.csr_matrix(membership, shape=(len(names), n_obs))
        size = size_factors(counts, observed)
        return at_own_depth(pooled_rates(pools, counts, observed, size)[codes], counts, observed)
