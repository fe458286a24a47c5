import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ._base import Counts, Missing, at_own_depth, gene_rates, observe, size_factors


@dataclass(frozen=True)
class SCVI:
    """The posterior mean of scVI with the default architecture and training of scvi-tools (Lopez et al. 2018).

    scVI knows no missing entries. Taken as zeros it learns to reconstruct them; at the mean given the cell's
    size factor they tell it least. Sets ``scvi.settings.seed``, which seeds the global generators of torch and
    numpy.

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

    def impute(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> Counts:
        """Predict every entry; see :class:`Imputer`."""
        import anndata
        import scvi  # takes seconds

        counts, observed = observe(counts, missing)
        size = size_factors(counts, observed)
        filled = np.where(observed > 0, counts, np.outer(size, gene_rates(counts, observed, size)))
        cells = filled.any(axis=1)  # scVI takes the logarithm of the library size
        adata = anndata.AnnData(filled[cells])
        scvi.settings.seed = seed
        with warnings.catch_warnings():
            # a mean is no integer: the likelihood of scVI takes it, with these two remarks
            warnings.filterwarnings("ignore", "adata.X does not contain unnormalized count data")
            warnings.filterwarnings("ignore", "The value argument must be within the support")
            scvi.model.SCVI.setup_anndata(adata)
            model = scvi.model.SCVI(adata)
            model.train(max_epochs=self.max_epochs, enable_progress_bar=False, logger=False)
        profiles = np.zeros_like(counts)
        profiles[cells] = model.get_normalized_expression(
            library_size="latent", n_samples=self.n_samples, return_numpy=True
        )
        return at_own_depth(profiles, counts, observed)
