from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from ._base import (
    Counts,
    Imputer,
    Missing,
    Pool,
    at_own_depth,
    gene_means,
    normalise,
    observe,
    pooled_rates,
    size_factors,
)


@dataclass(frozen=True)
class KNNSmoothing(Imputer):
    """The rates of the cell and its nearest neighbours together, at the cell's own depth.

    Neighbours are found by principal components of log-normalised counts, missing entries at their gene's
    mean. Their distance is the cosine, as by Euclidean distance the neighbours of a noisy cell are those near
    the centre. Molecules are pooled as by Wagner, Yan & Yanai (2018), bioRxiv 217737, in a single step, with
    missing entries left out.

    Parameters
    ----------
    n_neighbors
        Number of cells pooled, the cell itself included.
    """

    n_neighbors: int = 30
    name: ClassVar[str] = "knn"
    n_components: ClassVar[int] = 50

    def fit(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0) -> Pool:
        """Keep the cells; see :class:`Imputer`."""
        return Pool(*observe(counts, missing), partial(self._predict, seed=seed))

    def _predict(self, counts: Counts, observed: NDArray[np.float32], *, seed: int) -> Counts:
        size = size_factors(counts, observed, gene_means(counts, observed))
        logs = np.log1p(normalise(counts, size))
        deviations = (logs - gene_means(logs, observed)) * observed
        components = PCA(min(self.n_components, *counts.shape), random_state=seed).fit_transform(deviations)
        search = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(counts)), metric="cosine")
        pools = search.fit(components).kneighbors_graph(components).astype(np.float32)
        return at_own_depth(pooled_rates(pools, counts, observed, size), counts, observed)
