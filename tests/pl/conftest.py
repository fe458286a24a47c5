import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.fixture
def imputed(make_adata):
    """Counts, a third of them hidden, with calibrated predictions: what an imputer of known rates would write."""
    adata = make_adata(n_obs=400)
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.5, 3.0, size=adata.shape)
    counts = rng.poisson(rates).astype(float)
    hidden = rng.random(adata.shape) < 1 / 3
    adata.X = counts
    adata.layers.update({"hidden": hidden, "truth": counts, "null": rng.permuted(counts, axis=0)})
    adata.layers["imputed"] = np.where(hidden, rates, counts)
    adata.layers["imputed_std"] = np.where(hidden, np.sqrt(rates), 0.0)
    adata.layers["imputed_lower"] = np.where(hidden, np.floor(rates * 0.5), counts)
    adata.layers["imputed_upper"] = np.where(hidden, np.ceil(rates * 1.5), counts)
    adata.obsm["X_umap"] = rng.normal(size=(400, 2))
    return adata
