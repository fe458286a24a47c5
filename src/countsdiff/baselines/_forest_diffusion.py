from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._base import Counts, Imputer, Missing, median_of_draws, observe


@dataclass(frozen=True)
class ForestDiffusion(Imputer):
    """Diffusion whose denoisers are gradient-boosted trees, by the authors' package (Jolicoeur-Martineau et al. 2024).

    As the authors impute: variance-preserving diffusion, 50 noise levels, every cell noised 100 times, RePaint with 10
    repetitions of a tenth of the steps, and missing entries left to the trees, which know them. Counts enter as
    ``log1p``, as skewed columns do; draws come back as counts between the smallest and the largest of the gene, and
    imputation is the mean of several. Observed entries are conditions and come back as they are.

    It trains one forest per gene and noise level, so its cost grows with the square of the number of genes: minutes
    for ten genes of a few hundred cells. More than 50 genes are refused.

    Parameters
    ----------
    n_noise_levels
        Number of noise levels.
    n_copies
        How many times every cell is noised in training.
    n_draws
        Draws that imputation averages.

    References
    ----------
    Jolicoeur-Martineau, Fatras & Kachman (2024), Generating and imputing tabular data via diffusion and flow-based
    gradient-boosted trees, AISTATS.
    """

    n_noise_levels: int = 50
    n_copies: int = 100
    n_draws: int = 5
    name: ClassVar[str] = "forest_diffusion"
    max_vars: ClassVar[int] = 50

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedForestDiffusion":
        """Train the forests on the observed entries; see :class:`Imputer`.

        Raises
        ------
        ImportError
            If the package ForestDiffusion is not installed.
        ValueError
            If there are more than 50 genes, or none that is observed.
        """
        try:
            from ForestDiffusion import diffusion_with_trees_class as package
        except ImportError as error:
            raise ImportError('ForestDiffusion is not installed; run: pip install "countsdiff[rivals]"') from error
        counts, observed = observe(counts, missing)
        if counts.shape[1] > self.max_vars:
            raise ValueError(
                f"forest_diffusion trains forests for every gene, on all genes: {counts.shape[1]} are too many, "
                f"the limit is {self.max_vars}"
            )
        genes: NDArray[np.bool_] = np.any(observed > 0, axis=0)
        if not genes.any():
            raise ValueError("no entry is observed: there is nothing to learn from")
        with _numpy_seed(seed):
            model = package.ForestDiffusionModel(
                _logs(counts, observed)[:, genes],
                n_t=self.n_noise_levels,
                duplicate_K=self.n_copies,
                diffusion_type="vp",
                n_jobs=1,  # the trees use all threads themselves
                seed=seed,
            )
        return _FittedForestDiffusion(model, genes, self.n_draws, seed)


@dataclass(frozen=True)
class _FittedForestDiffusion:
    model: Any
    genes: NDArray[np.bool_]  # those that were observed; the others are 0
    n_draws: int
    seed: int

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        return np.mean(list(self._draws(counts, missing, self.n_draws, self.seed)), axis=0)

    def impute_whole(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        return median_of_draws(self.sample(counts, missing, self.n_draws, labels=labels, seed=self.seed))

    def sample(
        self,
        counts: Counts,
        missing: Missing | None,
        n_samples: int,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> Counts:
        return np.rint(list(self._draws(counts, missing, n_samples, seed)))

    def _draws(self, counts: Counts, missing: Missing | None, n_samples: int, seed: int) -> Iterator[Counts]:
        counts, observed = observe(counts, missing, n_vars=len(self.genes))
        logs = self.model.scaler.transform(_logs(counts, observed)[:, self.genes])
        open_cells = np.isnan(logs).any(axis=1)
        with _numpy_seed(seed):
            for _ in range(n_samples):
                draw = counts.copy()
                if open_cells.any():
                    imputed = self.model.impute(X=logs[open_cells], repaint=True, r=10, j=0.1)
                    draw[np.ix_(open_cells, self.genes)] = np.expm1(imputed)
                yield np.where(observed > 0, counts, draw)


def _logs(counts: Counts, observed: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(observed > 0, np.log1p(counts), np.float32(np.nan))


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed the global generator, from which the package draws, and leave it as it was."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
