from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.extmath import randomized_svd

from ._base import Counts, Imputer, Missing, Pool, at_own_depth, divide, gene_means, normalise, observe, size_factors

_N_SPECTRUM = 100  # singular values looked at
_NOISE_SHARE = 0.8  # beyond this share of them there is nothing but noise
_N_DEVIATIONS = 6  # a spacing this far above those of the noise is signal
_QUANTILE = 0.001  # as far below 0 as noise takes a gene, it may take it above
_N_REFILLS = 10
_LIBRARY = 10_000  # counts per cell before the logarithm


@dataclass(frozen=True)
class ALRA(Imputer):
    """Low-rank approximation with thresholds that keep biological zeros, as its authors run it (Linderman et al. 2022).

    Counts are brought to 10,000 per cell and log-transformed; the rank is the last spacing of singular values that
    stands out from those of the noise; in the approximation, values below the magnitude of a gene's most negative ones
    (the .001 quantile) become 0; the rest gets the mean and standard deviation of the gene's observed
    positive values, and observed positive values that were lost come back.

    ALRA knows no missing entries. They start at their gene's mean and are then filled ten times with the low-rank
    approximation of the filled matrix (as Troyanskaya et al. 2001): left at the mean they pull the approximation
    towards it, and predictions were worse. Means and standard deviations are those of observed entries. The logarithm
    is undone, and the profile brought back to the cell's own depth.

    References
    ----------
    Linderman et al. (2022), Zero-preserving imputation of single-cell RNA-seq data, Nat. Commun. 13, 192.
    Troyanskaya et al. (2001), Missing value estimation methods for DNA microarrays, Bioinformatics 17, 520-525.
    """

    name: ClassVar[str] = "alra"

    def fit(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0) -> Pool:
        """Keep the cells; see :class:`Imputer`."""
        return Pool(*observe(counts, missing), partial(_predict, seed=seed))


def _predict(counts: Counts, observed: NDArray[np.float32], *, seed: int) -> Counts:
    means = gene_means(counts, observed)
    size = size_factors(counts, observed, means)
    values = np.log1p(normalise(counts, size) * divide(np.array([_LIBRARY]), means.sum()))
    known = observed > 0
    filled = np.where(known, values, gene_means(values, observed))
    rank = _choose_rank(_svd(filled, min(_N_SPECTRUM, *filled.shape), 2, seed)[1])
    if not known.all():
        for _ in range(_N_REFILLS):
            filled = np.where(known, values, np.maximum(_approximate(filled, rank, 2, seed), 0))
    low_rank = _approximate(filled, rank, 10, seed)
    low_rank[low_rank <= np.maximum(-np.quantile(low_rank, _QUANTILE, axis=0), 0)] = 0
    completed = _rescale(low_rank, values, known)
    completed = np.where(known & (completed == 0), values, completed)
    # at the average cell's depth, which those of which nothing was seen keep
    return at_own_depth(np.expm1(completed) * divide(means.sum(), np.array([_LIBRARY])), counts, observed)


def _svd(values: NDArray[Any], rank: int, n_power_iterations: int, seed: int) -> tuple[NDArray[Any], ...]:
    return randomized_svd(values, rank, n_iter=n_power_iterations, random_state=seed)


def _approximate(values: NDArray[Any], rank: int, n_power_iterations: int, seed: int) -> NDArray[Any]:
    left, spectrum, right = _svd(values, rank, n_power_iterations, seed)
    return (left * spectrum) @ right


def _choose_rank(spectrum: NDArray[Any]) -> int:
    """Return the number of singular values before the last spacing that stands out; 1 if none does."""
    spacings = spectrum[:-1] - spectrum[1:]
    noise = spacings[max(int(_NOISE_SHARE * len(spectrum)) - 2, 0) :]
    if len(noise) < 2:
        return 1
    signal = np.flatnonzero(spacings > noise.mean() + _N_DEVIATIONS * noise.std(ddof=1))
    return int(signal[-1]) + 1 if signal.size else 1


def _rescale(low_rank: NDArray[Any], values: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Give each gene's positive values the mean and standard deviation of its observed positive values."""
    theirs, their_spread = _positive_moments(values, known)
    ours, our_spread = _positive_moments(low_rank, known)
    factor = divide(their_spread, our_spread)
    scaled = np.maximum((low_rank - ours) * factor + theirs, 0)
    # a single value has no spread to match, and a gene that was never seen above 0 stays there
    return np.where((low_rank > 0) & (factor > 0), scaled, low_rank * (theirs > 0))


def _positive_moments(values: NDArray[Any], known: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    positive = (known & (values > 0)).astype(np.float32)
    n = positive.sum(axis=0)
    mean = divide((positive * values).sum(axis=0), n)
    return mean, np.sqrt(divide((positive * (values - mean) ** 2).sum(axis=0), n - 1))
