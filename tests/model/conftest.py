import pickle

import pandas as pd
import pytest
import torch
from scipy import sparse


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
