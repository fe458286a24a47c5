import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

from countsdiff.pp import highly_variable


@pytest.fixture
def counts():
    """300 genes of any mean, of which every fifteenth is expressed by one of two kinds of cells only."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.5, 4.0, (1, 300)) * np.ones((200, 1))
    mean[:100, ::15] *= 2
    mean[100:, ::15] = 0
    return rng.poisson(mean).astype(np.float32)


def test_agrees_with_scanpy_on_log_normalised_counts(counts):
    adata = ad.AnnData(counts.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=20)
    np.testing.assert_array_equal(highly_variable(ad.AnnData(counts), 20), adata.var["highly_variable"])


def test_finds_the_genes_that_differ(counts):
    chosen = highly_variable(ad.AnnData(counts), 20)
    assert chosen.dtype == bool
    assert chosen.sum() == 20
    assert chosen[::15].mean() > 0.8


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_alike_for_layers_and_formats_and_leaves_counts(counts, form, dtype):
    expected = highly_variable(ad.AnnData(counts), 20)
    adata = ad.AnnData(np.zeros_like(counts), layers={"counts": form(counts.astype(dtype))})
    np.testing.assert_array_equal(highly_variable(adata, 20, layer="counts"), expected)
    layer = adata.layers["counts"]
    np.testing.assert_array_equal(layer.toarray() if sparse.issparse(layer) else layer, counts)
    assert not adata.var.columns.size


@pytest.mark.parametrize("n_genes", [300, 1000])
def test_all_genes_where_there_are_no_more(counts, n_genes):
    assert highly_variable(ad.AnnData(counts), n_genes).tolist() == [True] * 300


def test_normalised_counts_are_none(counts):
    adata = ad.AnnData(counts.astype(np.float32), layers={"counts": counts})
    sc.pp.normalize_total(adata)
    with pytest.raises(ValueError, match=r"adata\.X is not a matrix of counts.*layer='counts'"):
        highly_variable(adata, 5)
    assert highly_variable(adata, 5, layer="counts").sum() == 5


def test_refuses(counts):
    with pytest.raises(ValueError, match="0"):
        highly_variable(ad.AnnData(counts), 0)
    with pytest.raises(KeyError, match="nope"):
        highly_variable(ad.AnnData(counts), 20, layer="nope")


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_refuses_where_no_gene_varies(counts, form):
    for alike in (np.zeros_like(counts), np.repeat(counts[:1], 20, axis=0), counts[:1]):
        with pytest.raises(ValueError, match="No gene varies"):
            highly_variable(ad.AnnData(form(alike)), 20)


@pytest.mark.parametrize("form", [sparse.csr_matrix, np.asarray])
def test_missing_counts_are_named(form):
    counts = np.random.default_rng(0).poisson(2.0, (30, 9)).astype(float)
    counts[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN marks missing counts"):
        highly_variable(ad.AnnData(form(counts)), 3)
