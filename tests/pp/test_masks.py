import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from countsdiff.pp import hide_entries, mcar


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(0.7, (20, 15)).astype(np.float32)


def test_mcar_is_the_published_protocol():
    observed = np.random.default_rng(1).random((50, 30)) > 0.5
    np.testing.assert_array_equal(mcar((50, 30), 0.5, seed=1), ~observed)


def test_mcar_share_and_seed():
    assert mcar((300, 300), 0.2).mean() == pytest.approx(0.2, abs=0.01)
    assert mcar((9, 9), 1.0).all()
    assert not mcar((9, 9), 0.0).any()
    assert (mcar((9, 9), 0.5, seed=1) != mcar((9, 9), 0.5, seed=2)).any()


def test_mcar_with_more_hidden_keeps_what_was_hidden():
    assert (mcar((50, 30), 0.8) >= mcar((50, 30), 0.3)).all()


@pytest.mark.parametrize("share", [-0.1, 1.5, np.nan])
def test_mcar_refuses_what_is_no_probability(share):
    with pytest.raises(ValueError, match=str(share)):
        mcar((2, 2), share)


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix])
@pytest.mark.parametrize("hidden_form", [np.asarray, sparse.csr_matrix])
def test_hide_entries(counts, layer, form, hidden_form):
    hidden = mcar(counts.shape, 0.5)
    original = form(counts)
    adata = ad.AnnData(original, layers={"counts": original, "other": original})
    result = hide_entries(adata, hidden_form(hidden), layer=layer)

    changed = result.X if layer is None else result.layers[layer]
    assert type(changed) is type(original)
    assert changed.dtype == original.dtype
    dense = changed.toarray() if sparse.issparse(changed) else changed
    np.testing.assert_array_equal(dense, np.where(hidden, 0, counts))
    if sparse.issparse(changed):
        assert changed.nnz == np.count_nonzero(dense)
    marks = result.layers["hidden"]
    assert marks.format == "csr"
    assert marks.dtype == bool
    np.testing.assert_array_equal(marks.toarray(), hidden)

    for untouched in (result.layers["other"], adata.X, adata.layers["counts"]):
        np.testing.assert_array_equal(untouched.toarray() if sparse.issparse(untouched) else untouched, counts)
    assert "hidden" not in adata.layers


def test_hide_entries_hides_nan(counts):
    counts[0, 0] = np.nan
    for form in (np.asarray, sparse.csr_matrix):
        result = hide_entries(ad.AnnData(form(counts)), np.isnan(counts), key_added="gone")
        assert result.X[0, 0] == 0
        assert result.layers["gone"].sum() == 1


def test_hide_entries_refuses(counts):
    adata = ad.AnnData(counts)
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(20, 15\)"):
        hide_entries(adata, np.zeros((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="float32"):
        hide_entries(adata, counts)
    with pytest.raises(KeyError, match="nope"):
        hide_entries(adata, counts > 0, layer="nope")
