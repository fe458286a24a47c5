import pytest
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
