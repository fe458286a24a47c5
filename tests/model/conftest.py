import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from countsdiff import CountsDiffImputer


@pytest.fixture(scope="session")
def hidden(make_adata):
    """Boolean matrix of missing entries, a third of them, for data as `make_adata()` makes them."""
    return np.random.default_rng(3).random(make_adata().shape) < 1 / 3


@pytest.fixture(scope="session")
def train():
    """Set up and train briefly: what the tests look at does not depend on how good the model is."""

    def _train(adata, max_steps=30, model_kwargs=None, **setup):
        CountsDiffImputer.setup_anndata(adata, **setup)
        model = CountsDiffImputer(adata, width=32, **(model_kwargs or {}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.train(max_steps=max_steps, batch_size=32, enable_progress_bar=False)
        return model

    return _train


@pytest.fixture(scope="session")
def trained(make_adata, hidden, train):
    """A trained model, with missing entries in a layer and every kind of covariate."""
    adata = make_adata()
    adata.layers["hidden"] = sparse.csr_matrix(hidden)
    return train(
        adata,
        missing_layer="hidden",
        labels_key="kind",
        batch_key="batch",
        continuous_covariate_keys=["age"],
    )


@pytest.fixture
def query(make_adata, hidden):
    """Fresh data like those of `trained`, with the missing entries marked."""
    adata = make_adata()
    adata.layers["hidden"] = sparse.csr_matrix(hidden)
    return adata


@pytest.fixture
def saved(trained, tmp_path):
    """Folder of a saved model."""
    trained.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def no_pickle(monkeypatch):
    """Have everything that reads pickles fail."""

    def refuse(*args, **kwargs):
        raise AssertionError("something was read from a pickle")

    for module in (pickle, torch, pd):
        for name in ("load", "loads", "Unpickler", "read_pickle"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, refuse)
