"""Every container of counts gives the result that dense counts give."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from countsdiff import CountsDiffImputer

CONTAINERS = {
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "int64": lambda x: x.astype(np.int64),
    "uint16": lambda x: x.astype(np.uint16),
    "float64": lambda x: x.astype(np.float64),
    "csr int32": lambda x: sparse.csr_matrix(x.astype(np.int32)),
    "fortran": np.asfortranarray,
}


def fresh(adata, x):
    return ad.AnnData(x, obs=adata.obs.copy(), var=adata.var.copy())


@pytest.fixture(scope="module")
def counts(make_adata):
    return make_adata().X.toarray()


@pytest.fixture(scope="module")
def expected(make_adata, counts, hidden, train):
    adata = fresh(make_adata(), counts.copy())
    model = train(adata, max_steps=12)
    return {o: model.impute(missing=hidden, output=o, inplace=False) for o in ("mean", "sample")}


@pytest.mark.parametrize("name", CONTAINERS)
def test_same_as_dense(name, make_adata, counts, hidden, train, expected):
    adata = fresh(make_adata(), CONTAINERS[name](counts.copy()))
    model = train(adata, max_steps=12)
    for output, result in expected.items():
        np.testing.assert_array_equal(model.impute(missing=hidden, output=output, inplace=False), result)


def test_view(make_adata, counts, hidden, train, expected):
    bigger = ad.concat([make_adata(), make_adata(n_obs=10, seed=5)], index_unique="-")
    bigger.obs_names = [f"cell{i}" for i in range(100)]
    view = bigger[:90]
    assert view.is_view
    model = train(view, max_steps=12)
    np.testing.assert_array_equal(model.impute(missing=hidden, inplace=False), expected["mean"])
    model.impute(missing=hidden)
    assert "imputed" in view.layers
    assert "imputed" not in bigger.layers
    assert bigger.n_obs == 100
    assert "_scvi_uuid" not in bigger.uns


def test_names_that_are_numbers(tmp_path, make_adata, train):
    adata = make_adata()
    adata.var_names = pd.RangeIndex(adata.n_vars)
    model = train(adata, max_steps=2)
    model.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(loaded.impute(inplace=False), model.impute(inplace=False))
    assert adata.var_names[3] == "3"


def test_view_of_registered_data(make_adata, train):
    whole = make_adata()
    train(whole, max_steps=2)
    part = whole[:, :20]
    model = train(part, max_steps=2)
    assert model.impute(inplace=False).shape == part.shape
    assert part.uns["_scvi_uuid"] != whole.uns["_scvi_uuid"]


def test_view_of_data_on_disk(tmp_path, make_adata):
    make_adata().write_h5ad(tmp_path / "backed.h5ad")
    with pytest.raises(ValueError, match="read it first"):
        CountsDiffImputer(ad.read_h5ad(tmp_path / "backed.h5ad", backed="r")[:20])


def test_backed(tmp_path, make_adata, hidden, train, expected):
    path = tmp_path / "backed.h5ad"
    make_adata().write_h5ad(path)
    backed = ad.read_h5ad(path, backed="r")
    model = train(make_adata(), max_steps=12)
    np.testing.assert_array_equal(model.impute(backed, missing=hidden, inplace=False), expected["mean"])
    # scvi-tools' loader sorts backed indices; the rows have to come back in the order asked for
    rows = [5, 3, 1]
    picked = model.impute(backed, missing=hidden, indices=rows, inplace=False)
    np.testing.assert_array_equal(picked, expected["mean"][rows])


def test_training_on_backed_data(tmp_path, make_adata, hidden, train, expected):
    path = tmp_path / "backed.h5ad"
    make_adata().write_h5ad(path)
    backed = ad.read_h5ad(path, backed="r")
    imputed = train(backed, max_steps=12).impute(missing=hidden, inplace=False)
    # backed rows come sorted within a minibatch, so training sees the same cells in another order
    np.testing.assert_array_equal(imputed[~hidden], expected["mean"][~hidden])
    assert np.corrcoef(np.log(imputed[hidden]), np.log(expected["mean"][hidden]))[0, 1] > 0.95


def test_layer_is_sparse_where_that_is_smaller(make_adata, train):
    adata = make_adata()
    adata.X.data[:] = 1.0
    sparser = adata.X.multiply(np.random.default_rng(0).random(adata.shape) < 0.2).tocsr()
    adata = fresh(adata, sparser)
    few = np.zeros(adata.shape, bool)
    few[:, 0] = True
    model = train(adata, max_steps=12)
    model.impute(missing=few)
    assert sparse.isspmatrix_csr(adata.layers["imputed"])
    np.testing.assert_array_equal(adata.layers["imputed"].toarray(), model.impute(missing=few, inplace=False))


def test_registers_itself_on_the_counts_layer(make_adata):
    adata = make_adata()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0.5
    model = CountsDiffImputer(adata)
    assert model.registry_["setup_args"]["layer"] == "counts"


def test_batches_do_not_decide_whether_a_layer_is_sparse(make_adata, train):
    adata = make_adata()
    counts = np.where(np.random.default_rng(0).random(adata.shape) < 0.9, 0, adata.X.toarray())
    counts[4] = 1.0  # one cell that is full
    adata.X = sparse.csr_matrix(counts.astype(np.float32))
    hidden = np.zeros(adata.shape, dtype=bool)
    hidden[:5, :3] = True
    model = train(adata, max_steps=2)
    layers = []
    for size in (None, 1, 8):
        model.impute(missing=hidden, batch_size=size)
        layers.append(adata.layers["imputed"])
    assert all(sparse.issparse(layer) for layer in layers)
    for layer in layers[1:]:
        np.testing.assert_array_equal(layer.toarray(), layers[0].toarray())
