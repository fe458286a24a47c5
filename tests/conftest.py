import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is first imported

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

torch.set_num_threads(1)  # the tensors are tiny: a second thread costs more than it does


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def make_adata():
    """Factory of small count data with structure: two cell types, cells of different depth."""

    def make(n_obs: int = 90, n_vars: int = 30, seed: int = 0) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        rates = rng.gamma(1.0, 2.0, size=(2, n_vars))
        kind = rng.integers(2, size=n_obs)
        counts = rng.poisson(rates[kind] * rng.gamma(4.0, 0.25, size=(n_obs, 1))).astype(np.float32)
        adata = ad.AnnData(sparse.csr_matrix(counts))
        adata.obs_names = [f"cell{i}" for i in range(n_obs)]
        adata.var_names = [f"gene{j}" for j in range(n_vars)]
        adata.obs["kind"] = np.array(["a", "b"])[kind]
        adata.obs["batch"] = np.array(["x", "y", "z"])[rng.integers(3, size=n_obs)]
        adata.obs["age"] = rng.normal(50.0, 10.0, size=n_obs)
        return adata

    return make
