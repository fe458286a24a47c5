"""Data of any shape, type, layout, mask and covariates: what holds for all of them, by example."""

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from countsdiff import CountsDiffImputer

LAYOUTS = {
    "dense": np.asarray,
    "columns first": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr array": sparse.csr_array,
    "csc array": sparse.csc_array,
}
INTEGERS, FLOATS = ["uint8", "int16", "int32", "int64"], ["float32", "float64"]


@st.composite
def data(draw):
    """An AnnData, its counts as float32, which of them are missing, and arguments of ``setup_anndata``."""
    n_obs, n_vars = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rates = draw(st.sampled_from([0.02, 0.5, 3.0, 60.0])) * rng.gamma(0.5, 2.0, n_vars)
    counts = np.minimum(rng.poisson(rates, (n_obs, n_vars)), 255)
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    missing = rng.random(counts.shape) < share
    marked_by = draw(st.sampled_from(["nothing", "NaN", "layer", "sparse layer"]))
    types = FLOATS if marked_by == "NaN" else INTEGERS + FLOATS
    layout = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))]
    matrix = counts.astype(draw(st.sampled_from(types)))
    if marked_by == "NaN":
        matrix[missing] = np.nan
    adata = ad.AnnData(layout(matrix))
    setup = {}
    if marked_by in ("layer", "sparse layer"):
        adata.layers["hidden"] = missing if marked_by == "layer" else sparse.csr_matrix(missing)
        setup["missing_layer"] = "hidden"
    if marked_by == "nothing":
        missing[:] = False
    for key, names in (("batch_key", "xyz"), ("labels_key", "ab")):
        if draw(st.booleans()):
            adata.obs[key] = pd.Categorical(rng.choice(list(names), n_obs))
            setup[key] = key
    if draw(st.booleans()):
        adata.obs["age"] = rng.normal(50.0, 10.0, n_obs)
        setup["continuous_covariate_keys"] = ["age"]
    return adata, counts.astype(np.float32), missing, setup


def trained(adata, setup):
    CountsDiffImputer.setup_anndata(adata, **setup)
    model = CountsDiffImputer(adata, width=8)
    model.train(2, validation_size=0.0, accelerator="cpu", enable_progress_bar=False)
    return model


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data())
def test_impute(example):
    adata, counts, missing, setup = example
    before = adata.copy()
    model = trained(adata, setup)
    mean = model.impute(inplace=False)
    draw = model.impute(output="sample", n_steps=3, inplace=False, seed=1)
    mean, draw = dense(mean), dense(draw)
    rewritten = missing if missing.any() else counts == 0
    assert mean.shape == draw.shape == counts.shape
    np.testing.assert_array_equal(mean[~rewritten], counts[~rewritten])
    np.testing.assert_array_equal(draw[~rewritten], counts[~rewritten])
    assert np.isfinite(mean).all()
    assert (mean >= 0).all()
    np.testing.assert_array_equal(draw, np.round(draw))
    assert (draw >= 0).all()
    # the data are as they were, down to their type
    assert type(adata.X) is type(before.X)
    assert adata.X.dtype == before.X.dtype
    np.testing.assert_array_equal(dense(adata.X), dense(before.X))
    # and their type made no difference
    plain = ad.AnnData(np.where(missing, np.nan, counts).astype(np.float32), obs=before.obs)
    setup = {key: value for key, value in setup.items() if key != "missing_layer"}
    np.testing.assert_array_equal(dense(trained(plain, setup).impute(inplace=False)), mean)
