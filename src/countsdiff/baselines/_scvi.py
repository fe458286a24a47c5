import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from countsdiff.metrics import poisson_loss

from ._base import (
    Counts,
    Imputer,
    Missing,
    at_own_depth,
    gene_means,
    gene_rates,
    median_of_draws,
    observe,
    size_factors,
)

_FILLS = ("means", "zeros", "predictions")  # of missing entries, for the encoder
_REFILLS = 3  # with predictions: ever more run away where few counts are known
_KEPT = 500  # cells to choose by


@dataclass(frozen=True)
class SCVI(Imputer):
    """The posterior mean of scVI with the default architecture and training of scvi-tools (Lopez et al. 2018).

    scVI has no notion of missing entries; if they are set to zero, it learns to reconstruct these zeros. They are
    therefore set to their mean given the cell's size factor, which tells it least. If the cells fitted were complete,
    what its encoder should be shown of others depends on the data and on how much is missing: these means, zeros, or
    what the model itself predicts, three times over. As much is hidden of some of the cells fitted, and what predicts
    these best by the Poisson loss is taken. (If they were not, the encoder has learnt to read means; other choices
    were worse.) Samples are posterior predictive, at the library size of the cell filled with means. A cell of which
    nothing is known has nothing to encode: it is sampled from the prior, at the library size of a cell fitted. Sets
    ``scvi.settings.seed``, which seeds the global generators of torch and numpy.

    Parameters
    ----------
    max_epochs
        None for the default of scvi-tools, 400 for up to 20,000 cells.
    n_samples
        Draws of the latent variable to average over.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics, Nat. Methods 15, 1053-1058.
    """

    max_epochs: int | None = None
    n_samples: int = 25
    name: ClassVar[str] = "scvi"

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedSCVI":
        """Train on the filled cells; see :class:`Imputer`."""
        import scvi  # takes seconds

        counts, observed = observe(counts, missing)
        means = gene_means(counts, observed)
        rates = gene_rates(counts, observed, size_factors(counts, observed, means))
        filled = _fill(counts, observed, means, rates)
        filled = filled[filled.any(axis=1)]  # scVI takes the logarithm of the library size
        scvi.settings.seed = seed
        with _cells(filled) as adata:
            scvi.model.SCVI.setup_anndata(adata)
            model = scvi.model.SCVI(adata)
            model.train(max_epochs=self.max_epochs, enable_progress_bar=False, logger=False)
        kept = np.random.default_rng(seed).permutation(len(counts))[:_KEPT]
        complete = counts[kept] if observed.all() else None
        return _FittedSCVI(model, means, rates, filled.sum(axis=1), complete, self.n_samples, seed)


@dataclass(frozen=True)
class _FittedSCVI:
    model: Any
    means: NDArray[np.float32]
    rates: NDArray[np.float32]
    libraries: NDArray[np.float32]  # of the cells fitted
    complete: Counts | None  # some of them, if they were
    n_samples: int
    seed: int

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        import scvi

        counts, observed = observe(counts, missing, n_vars=len(self.means))
        scvi.settings.seed = self.seed
        return self._predict(self._shown(counts, observed, self.best_fill(observed)), counts, observed)

    def impute_whole(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        return median_of_draws(self.sample(counts, missing, self.n_samples, labels=labels, seed=self.seed))

    def sample(
        self,
        counts: Counts,
        missing: Missing | None,
        n_samples: int,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> Counts:
        import scvi

        counts, observed = observe(counts, missing, n_vars=len(self.means))
        scvi.settings.seed = self.seed
        shown = self._shown(counts, observed, self.best_fill(observed))
        library = _fill(counts, observed, self.means, self.rates).sum(axis=1)
        known = observed.any(axis=1)
        encoded = known & shown.any(axis=1)
        samples = np.zeros((n_samples, *counts.shape), dtype=np.float32)
        scvi.settings.seed = seed
        for sample in samples:
            if encoded.any():
                with _cells(shown[encoded]) as adata:
                    latent = self.model.get_latent_representation(adata, give_mean=False)
                sample[encoded] = self._draw(latent, library[encoded])
            sample[~known] = self._generate(int((~known).sum()))
        return samples

    def best_fill(self, observed: NDArray[np.float32]) -> str:
        """What to show of missing entries, where as many are missing: what is best for cells that were fitted."""
        known = observed[observed.any(axis=1)]
        if known.all() or self.complete is None:
            return _FILLS[0]
        counts = self.complete
        left = (np.random.default_rng(self.seed).random(counts.shape) < known.mean()).astype(np.float32)
        seen, hidden = counts * left, left == 0
        if not hidden.any():
            return _FILLS[0]

        def loss(fill: str) -> float:
            return poisson_loss(counts[hidden], self._predict(self._shown(seen, left, fill), seen, left)[hidden])

        return min(_FILLS, key=loss)

    def _shown(self, counts: Counts, observed: NDArray[np.float32], fill: str) -> Counts:
        """Cells as the encoder is shown them."""
        by_mean = _fill(counts, observed, self.means, self.rates)
        if fill == "means":
            return by_mean
        shown = np.where(counts.any(axis=1, keepdims=True), counts, by_mean)
        for _ in range(_REFILLS if fill == "predictions" else 0):
            shown = np.where(observed > 0, counts, self._predict(shown, counts, observed))
        return shown

    def _predict(self, shown: Counts, counts: Counts, observed: NDArray[np.float32]) -> Counts:
        """Posterior means at the depth of the cells, which are shown to the encoder as `shown`."""
        cells = shown.any(axis=1)
        profiles = np.zeros_like(counts)
        if cells.any():
            with _cells(shown[cells]) as adata:
                profiles[cells] = self.model.get_normalized_expression(
                    adata, library_size="latent", n_samples=self.n_samples, return_numpy=True
                )
        return at_own_depth(profiles, counts, observed)

    def _generate(self, n_obs: int) -> Counts:
        """Draw new cells: latent variables from the prior, library sizes from the cells fitted."""
        import torch

        fitted = torch.randint(len(self.libraries), (n_obs,)).numpy()
        return self._draw(torch.randn(n_obs, self.model.module.n_latent).numpy(), self.libraries[fitted])

    def _draw(self, latent: NDArray[np.float32], library: NDArray[np.float32]) -> Counts:
        """Draw counts of cells with these latent variables and library sizes."""
        import torch

        device = self.model.device
        z, size = torch.from_numpy(latent).to(device), torch.from_numpy(library).unsqueeze(1).log().to(device)
        with torch.no_grad():
            law = self.model.module.generative(z, size, torch.zeros(len(z), 1, device=device))["px"]
            return np.asarray(law.sample().cpu().numpy(), dtype=np.float32)


def _fill(
    counts: Counts, observed: NDArray[np.float32], means: NDArray[np.float32], rates: NDArray[np.float32]
) -> Counts:
    """Put missing entries at their rate times the cell's size factor."""
    return np.where(observed > 0, counts, np.outer(size_factors(counts, observed, means), rates))


@contextmanager
def _cells(filled: Counts) -> Iterator[Any]:
    """Hand cells to scVI, which remarks twice on means that are no integers; its likelihood takes them."""
    import anndata

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "adata.X does not contain unnormalized count data")
        warnings.filterwarnings("ignore", "The value argument must be within the support")
        yield anndata.AnnData(filled)
