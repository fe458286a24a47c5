import numpy as np
import pytest
from scipy import sparse, stats

from countsdiff.pp import molecular_split


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(np.random.default_rng(1).gamma(0.4, 3.0, (60, 50)))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_parts_add_up_and_keep_type(counts, dtype, form):
    whole = form(counts.astype(dtype))
    parts = molecular_split(whole, 0.7)
    dense = [p.toarray() if sparse.issparse(p) else p for p in parts]
    np.testing.assert_array_equal(dense[0] + dense[1], counts)
    for part, values in zip(parts, dense, strict=True):
        assert type(part) is type(whole)
        assert part.dtype == dtype
        if sparse.issparse(part):
            assert part.nnz == np.count_nonzero(values)
    np.testing.assert_array_equal(whole.toarray() if sparse.issparse(whole) else whole, counts)


def test_is_the_published_protocol(counts):
    """A binomial of 0 trials draws no random number, so the zeros may as well be left out."""
    kept, _ = molecular_split(counts, 0.9, seed=0)
    np.testing.assert_array_equal(kept, np.random.default_rng(0).binomial(counts, 0.9))


def test_sparse_and_dense_are_split_alike(counts):
    untidy = sparse.csr_matrix(counts)
    untidy.data[:3] = 0  # stored zeros and columns out of order are no reason for another split
    tidy = untidy.toarray()
    for row in range(untidy.shape[0]):
        span = slice(untidy.indptr[row], untidy.indptr[row + 1])
        untidy.indices[span], untidy.data[span] = untidy.indices[span][::-1].copy(), untidy.data[span][::-1].copy()
    untidy.has_sorted_indices = False
    for part, expected in zip(molecular_split(untidy, seed=5), molecular_split(tidy, seed=5), strict=True):
        np.testing.assert_array_equal(part.toarray(), expected)


def test_binomial_law():
    kept, _ = molecular_split(np.full((200, 100), 7), 0.6, seed=2)
    observed = np.bincount(kept.ravel(), minlength=8)
    expected = stats.binom.pmf(np.arange(8), 7, 0.6) * kept.size
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_parts_of_poisson_counts_are_independent():
    counts = np.random.default_rng(3).poisson(3.0, (300, 300))
    kept, held_out = molecular_split(counts, 0.5)
    assert np.corrcoef(kept.ravel(), held_out.ravel())[0, 1] == pytest.approx(0, abs=0.015)
    assert held_out.var() == pytest.approx(1.5, rel=0.03)


def test_extreme_shares_and_seeds(counts):
    np.testing.assert_array_equal(molecular_split(counts, 1.0)[0], counts)
    np.testing.assert_array_equal(molecular_split(counts, 0.0)[1], counts)
    assert (molecular_split(counts, seed=1)[0] != molecular_split(counts, seed=2)[0]).any()


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_refuses_what_is_no_count(value, form):
    with pytest.raises(ValueError, match=f"{value:g}"):
        molecular_split(form([[1.0, value]]))


def test_refuses_other_formats_and_shares(counts):
    for form in (np.asarray, sparse.csr_matrix):
        with pytest.raises(TypeError, match=r"boolean; make them numbers"):
            molecular_split(form(counts > 0))
    with pytest.raises(TypeError, match="CSC"):
        molecular_split(sparse.csc_matrix(counts))
    with pytest.raises(ValueError, match=r"1\.1"):
        molecular_split(counts, 1.1)
