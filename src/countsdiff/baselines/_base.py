from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.float32]
Missing = NDArray[np.bool_]


class Imputer(Protocol):
    """What every baseline can do.

    Where entries are missing, all baselines are told which: a missing entry never counts as an observed zero.
    Methods that know no missing entries get them filled with the gene's mean, or diffuse observed entries
    only.
    """

    @property
    def name(self) -> str:
        """Key in ``BASELINES``."""

    def impute(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> Counts:
        """Predict every entry.

        Parameters
        ----------
        counts
            Counts of shape ``(n_obs, n_vars)``; what they hold at missing entries is not looked at.
        missing
            Boolean of the same shape, True where the count is not known. None if all are: then the counts are
            denoised.
        labels
            One label per cell, shape ``(n_obs,)``; only some baselines use them.
        seed
            Seed of whatever is random.

        Returns
        -------
        numpy.ndarray
            Predicted counts at each cell's own depth, dense float32 of shape ``(n_obs, n_vars)``, observed
            entries included: put the counts back where they are wanted.

        Raises
        ------
        ValueError
            If the shapes differ, `missing` is not boolean, or an observed count is negative or not finite.
        """


def observe(counts: ArrayLike, missing: Missing | None) -> tuple[Counts, NDArray[np.float32]]:
    """Return the counts with zeros at missing entries, and 1 or 0 for each entry that is observed or missing."""
    counts = np.asarray(counts, dtype=np.float32)
    if counts.ndim != 2:
        raise ValueError(f"counts must be a matrix (n_obs, n_vars); got shape {counts.shape}")
    if missing is None:
        missing = np.zeros(counts.shape, dtype=bool)
    if missing.shape != counts.shape or missing.dtype != bool:
        raise ValueError(
            f"missing must be boolean of shape {counts.shape}; got {missing.dtype} of shape {missing.shape}"
        )
    counts = np.where(missing, np.float32(0), counts)
    wrong = counts[~(np.isfinite(counts) & (counts >= 0))]
    if wrong.size:
        raise ValueError(f"counts hold {wrong[0]:g}; mark such entries as missing or set them to a count")
    return counts, (~missing).astype(np.float32)


def divide(numerator: NDArray[Any], denominator: NDArray[Any], *, otherwise: float = 0) -> NDArray[np.float32]:
    """Quotient where the denominator is positive."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), otherwise, dtype=np.float32)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def gene_means(counts: Counts, observed: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each gene over its observed entries, shape ``(n_vars,)``; 0 for a gene that is never observed."""
    return divide(counts.sum(axis=0), observed.sum(axis=0))


def size_factors(counts: Counts, observed: NDArray[np.float32]) -> NDArray[np.float32]:
    """Observed counts of each cell over what the gene means let expect of the genes observed, shape ``(n_obs,)``.

    So a cell is not called shallow for missing its strongest genes. 1 for a cell without observed entries.
    """
    return divide(counts.sum(axis=1), observed @ gene_means(counts, observed), otherwise=1)


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
