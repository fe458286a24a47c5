import gc
import os
import warnings
from pathlib import Path

# of processes that tests start
_PATHS = (str(Path(__file__).parent / "children"), os.environ.get("PYTHONPATH"))
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in _PATHS if path)
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is first imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, too

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

torch.set_num_threads(1)  # the tensors are tiny: a second thread costs more than it does


def pytest_collection_modifyitems(items):
    # the kernel that all tutorials share takes long to start: idle workers would take the last ones, and start another
    items.sort(key=lambda item: "tutorials" not in item.path.parts)


def pytest_collection_finish():
    gc.freeze()  # what was imported stays: looking through it again and again takes a fifth of the tests' time
    gc.set_threshold(10_000, 20, 20)


def pytest_unconfigure():
    gc.freeze()


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


@pytest.fixture(scope="session")
def hidden(make_adata):
    """Boolean matrix of missing entries, a third of them, for data as `make_adata()` makes them."""
    return np.random.default_rng(3).random(make_adata().shape) < 1 / 3


@pytest.fixture(scope="session")
def train():
    """Set up and train briefly: what the tests look at does not depend on how good the model is."""

    from countsdiff import CountsDiffImputer  # takes seconds, and most tests of core and metrics do without

    def _train(adata, max_steps=30, model_kwargs=None, **setup):
        CountsDiffImputer.setup_anndata(adata, **setup)
        model = CountsDiffImputer(adata, width=32, **(model_kwargs or {}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.train(max_steps=max_steps, batch_size=32, enable_progress_bar=False)
        return model

    return _train
