from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from countsdiff.matrix import to_dense

Counts = NDArray[np.float32]
Missing = NDArray[np.bool_]


class FittedImputer(Protocol):
    """What a baseline can do once it knows some cells: predict entries of these cells, or of others."""

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        """Predict every entry; calls with the same arguments return the same.

        Parameters
        ----------
        counts
            Counts of shape ``(n_obs, n_vars)``, dense or sparse, the genes being those fitted; what they hold at
            missing entries is not looked at.
        missing
            Boolean of the same shape, True where the count is not known. None if all counts are known: then they are
            denoised.
        labels
            One label per cell, shape ``(n_obs,)``; only some baselines use them.

        Returns
        -------
        numpy.ndarray
            Predicted counts at each cell's own depth, dense float32 of shape ``(n_obs, n_vars)``, observed
            entries included: put the counts back where they are wanted. Methods that only know the law of missing
            entries given the observed ones return those as they are.

        Raises
        ------
        ValueError
            If the shapes differ, there are other genes than were fitted, `missing` is not boolean, or an observed
            count is negative or not finite.
        """


@runtime_checkable
class FittedSampler(FittedImputer, Protocol):
    """A fitted generative method: it can also draw counts. ``isinstance`` tells which can."""

    def sample(
        self,
        counts: Counts,
        missing: Missing | None,
        n_samples: int,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> Counts:
        """Draw every entry from its predictive law, jointly where the method can.

        Parameters
        ----------
        counts, missing, labels
            As in :meth:`FittedImputer.impute`, and so are the errors.
        n_samples
            Number of draws.
        seed
            Seed of the draws.

        Returns
        -------
        numpy.ndarray
            Whole numbers at each cell's own depth, float32 of shape ``(n_samples, n_obs, n_vars)``. Observed entries
            as in :meth:`FittedImputer.impute`: drawn anew, or as they are.
        """


@runtime_checkable
class FittedRounder(FittedImputer, Protocol):
    """A fitted method with better whole numbers to give than its mean rounded. ``isinstance`` tells which has."""

    def impute_whole(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        """Predict every entry by a whole number, such as the median of its law.

        Parameters
        ----------
        counts, missing, labels
            As in :meth:`FittedImputer.impute`, and so are the errors.

        Returns
        -------
        numpy.ndarray
            Whole numbers of shape ``(n_obs, n_vars)``, float32.
        """


class Imputer(Protocol):
    """What every baseline can do: know some cells once, then impute many times.

    Where entries are missing, all baselines are told which: a missing entry never counts as an observed zero.
    Methods that know no missing entries get them filled with the gene's mean, or look at observed entries only.
    """

    @property
    def name(self) -> str:
        """Key in ``BASELINES``."""

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> FittedImputer:
        """Learn from cells, or keep them to compare others with.

        Parameters
        ----------
        counts, missing, labels
            As in :meth:`FittedImputer.impute`, and so are the errors.
        seed
            Seed of whatever is random, in imputing too.
        """

    def impute(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> Counts:
        """Fit the cells and predict every one of their entries; see :class:`FittedImputer`."""
        return self.fit(counts, missing, labels=labels, seed=seed).impute(counts, missing, labels=labels)


@dataclass(frozen=True)
class Pool:
    """Fitted state of methods that learn nothing but compare cells with each other: the cells themselves.

    Other cells are imputed together with the cells kept, in one matrix.

    Parameters
    ----------
    counts, observed
        The cells kept, as :func:`observe` returns them.
    predict
        The method: (counts, observed) → predicted counts of the same shape.
    """

    counts: Counts
    observed: NDArray[np.float32]
    predict: Callable[[Counts, NDArray[np.float32]], Counts]

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        """Predict every entry; see :class:`FittedImputer`."""
        counts, observed = observe(counts, missing, n_vars=self.counts.shape[1])
        if np.array_equal(counts, self.counts) and np.array_equal(observed, self.observed):
            return self.predict(counts, observed)  # the very cells that are kept: once is enough
        pooled = self.predict(np.concatenate([self.counts, counts]), np.concatenate([self.observed, observed]))
        return pooled[len(self.counts) :]


def observe(
    counts: ArrayLike, missing: Missing | None, *, n_vars: int | None = None
) -> tuple[Counts, NDArray[np.float32]]:
    """Return the counts with zeros at missing entries, and 1 or 0 for each entry that is observed or missing.

    `n_vars` is the number of genes that were fitted, where some were.
    """
    counts = to_dense(counts, np.float32)
    if counts.ndim != 2:
        raise ValueError(f"counts must be a matrix (n_obs, n_vars); got shape {counts.shape}")
    if n_vars is not None and counts.shape[1] != n_vars:
        raise ValueError(f"the baseline was fitted to {n_vars} genes, but counts have {counts.shape[1]}")
    missing = np.zeros(counts.shape, dtype=bool) if missing is None else to_dense(missing)
    if missing.shape != counts.shape or missing.dtype != bool:
        raise ValueError(
            f"missing must be boolean of shape {counts.shape}; got {missing.dtype} of shape {missing.shape}"
        )
    counts = np.where(missing, np.float32(0), counts)
    wrong = counts[~(np.isfinite(counts) & (counts >= 0))]
    if wrong.size:
        raise ValueError(f"counts hold {wrong[0]:g}; mark such entries as missing or set them to a count")
    return counts, (~missing).astype(np.float32)


def median_of_draws(draws: Counts) -> Counts:
    """Median of every entry over draws, shape ``(n_draws, n_obs, n_vars)``; of two in the middle the lower one."""
    middle = (len(draws) - 1) // 2
    return np.partition(draws, middle, axis=0)[middle]


def divide(numerator: NDArray[Any], denominator: NDArray[Any], *, otherwise: float = 0) -> NDArray[np.float32]:
    """Quotient where the denominator is positive."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), otherwise, dtype=np.float32)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def gene_means(counts: Counts, observed: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each gene over its observed entries, shape ``(n_vars,)``; 0 for a gene that is never observed."""
    return divide(counts.sum(axis=0), observed.sum(axis=0))


def size_factors(counts: Counts, observed: NDArray[np.float32], means: NDArray[np.float32]) -> NDArray[np.float32]:
    """Observed counts of each cell over what the gene `means` let expect of the genes observed, shape ``(n_obs,)``.

    So a cell is not called shallow for missing its strongest genes. 1 for a cell without observed entries.
    """
    return divide(counts.sum(axis=1), observed @ means, otherwise=1)


def normalise(counts: Counts, size: NDArray[np.float32]) -> NDArray[np.float32]:
    """Counts per unit of size factor; a cell without counts stays at 0."""
    return divide(counts, size[:, None])


def gene_rates(counts: Counts, observed: NDArray[np.float32], size: NDArray[np.float32]) -> NDArray[np.float32]:
    """Counts of each gene per unit of size factor of the cells it is observed in, shape ``(n_vars,)``."""
    return divide(counts.sum(axis=0), size @ observed)


def pooled_rates(
    pools: Any, counts: Counts, observed: NDArray[np.float32], size: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Counts per unit of size factor in each pool of cells, over observed entries, shape ``(n_pools, n_vars)``.

    One cell with average rates joins every pool: it speaks for genes that no cell of the pool observes, and
    keeps small pools from claiming that a rate is exactly 0. `pools` is a sparse 0/1 matrix of shape
    ``(n_pools, n_obs)``.
    """
    molecules = pools @ counts + gene_rates(counts, observed, size)
    return np.asarray(molecules / (pools @ (size[:, None] * observed) + 1), dtype=np.float32)


def at_own_depth(profiles: NDArray[Any], counts: Counts, observed: NDArray[np.float32]) -> Counts:
    """Scale each cell's profile so that over its observed entries it adds up to its observed counts.

    All baselines but the gene mean settle depth in this way, whatever their profiles are relative to. A cell
    without observed entries keeps its profile.
    """
    expected = np.einsum("ij,ij->i", profiles, observed)
    scale = divide(counts.sum(axis=1), expected, otherwise=1)
    return np.asarray(scale[:, None] * profiles, dtype=np.float32)
