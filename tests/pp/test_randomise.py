"""Poisson randomisation of numbers that are no counts."""

import numpy as np
import pytest
from scipy import sparse, stats

from countsdiff import pp


def test_counts_are_poisson_at_the_scale():
    counts = pp.poisson_counts(np.full((200, 50), 0.37), scale=5.0, seed=1).ravel()
    observed = np.bincount(counts.astype(int), minlength=8)
    expected = stats.poisson(1.85).pmf(np.arange(7)) * counts.size
    expected = np.append(expected, counts.size - expected.sum())
    observed = np.append(observed[:7], observed[7:].sum())
    assert stats.chisquare(observed, expected).pvalue > 0.001


def test_sparse_as_dense_and_missing_stays_missing():
    values = np.random.default_rng(0).gamma(0.3, 2.0, (30, 20)) * (np.random.default_rng(1).random((30, 20)) < 0.3)
    values[2, 3] = np.nan
    dense = pp.poisson_counts(values, seed=3)
    np.testing.assert_array_equal(pp.poisson_counts(sparse.csr_matrix(values), seed=3).toarray(), dense)
    assert np.isnan(dense[2, 3])
    assert np.isnan(dense).sum() == 1
    assert (dense[values == 0] == 0).all()
    assert not np.array_equal(pp.poisson_counts(values, seed=4), dense)


def test_scaled_back_they_are_what_they_were_on_average():
    values = np.array([[0.25, 3.5, 120.75]])
    draws = np.stack([pp.poisson_counts(values, scale=4.0, seed=s) / 4.0 for s in range(4_000)])
    error = np.sqrt(values / 4.0 / len(draws))
    assert (np.abs(draws.mean(0) - values) < 4 * error).all()


@pytest.mark.parametrize(
    ("values", "scale", "error", "message"),
    [
        ([[1.0, -0.5]], 1.0, ValueError, "-0.5"),
        ([[np.inf]], 1.0, ValueError, "inf"),
        ([[1.0]], 0.0, ValueError, "scale is 0"),
        (sparse.csc_matrix([[1.0]]), 1.0, TypeError, "CSC"),
    ],
)
def test_what_has_no_counts_is_refused(values, scale, error, message):
    with pytest.raises(error, match=message):
        pp.poisson_counts(values, scale)
