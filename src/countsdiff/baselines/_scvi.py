import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


@dataclass(frozen=True)
class SCVI(Imputer):
    """The posterior mean of scVI with the default architecture and training of scvi-tools (Lopez et al. 2018).

    scVI has no notion of missing entries; if they are set to zero, it learns to reconstruct these zeros. They are
    therefore set to their mean given the cell's size factor, which tells it least, with the gene rates of the cells
    fitted. Samples are posterior predictive, at the library size of the cell filled in this way. A cell of which
    nothing is known has nothing to encode: it is sampled
    from the prior, at the library size of a cell fitted. Sets ``scvi.settings.seed``, which seeds the global
    generators of torch and numpy.

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
        return _FittedSCVI(model, means, rates, filled.sum(axis=1), self.n_samples, seed)


@dataclass(frozen=True)
class _FittedSCVI:
    model: Any
    means: NDArray[np.float32]
    rates: NDArray[np.float32]
    libraries: NDArray[np.float32]  # of the cells fitted
    n_samples: int
    seed: int

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        import scvi

        counts, observed = observe(counts, missing, n_vars=len(self.means))
        filled = _fill(counts, observed, self.means, self.rates)
        cells = filled.any(axis=1)
        profiles = np.zeros_like(counts)
        scvi.settings.seed = self.seed
        with _cells(filled[cells]) as adata:
            profiles[cells] = self.model.get_normalized_expression(
                adata, library_size="latent", n_samples=self.n_samples, return_numpy=True
            )
        return at_own_depth(profiles, counts, observed)

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
        filled = _fill(counts, observed, self.means, self.rates)
        known = observed.any(axis=1)
        encoded = known & filled.any(axis=1)
        samples = np.zeros((n_samples, *counts.shape), dtype=np.float32)
        scvi.settings.seed = seed
        for sample in samples:
            if encoded.any():
                with _cells(filled[encoded]) as adata:
                    sample[encoded] = self.model.posterior_predictive_sample(adata).todense()
            sample[~known] = self._generate(int((~known).sum()))
        return samples

    def _generate(self, n_obs: int) -> Any:
        """Draw new cells: latent variables from the prior, library sizes from the cells fitted."""
        import torch

        module, device = self.model.module, self.model.device
        fitted = torch.randint(len(self.libraries), (n_obs, 1))
        library = torch.from_numpy(self.libraries)[fitted].log().to(device)
        latent, batch = torch.randn(n_obs, module.n_latent, device=device), torch.zeros(n_obs, 1, device=device)
        with torch.no_grad():
            return module.generative(latent, library, batch)["px"].sample().cpu().numpy()


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
