import numpy as np
import pytest
from scipy import sparse, special, stats

from countsdiff.metrics import correlation_error, mean_absolute_correlation


@pytest.fixture
def counts():
    """Correlated genes through a common factor, on more rows than a block."""
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(2.0, 1.0, (1500, 1)) * rng.gamma(1.0, 2.0, 12)).astype(np.float64)


def pairs(matrix):
    """Correlations of all pairs of different genes, one by one."""
    genes = matrix.T
    return np.array([stats.pearsonr(genes[i], genes[j]).statistic for i in range(len(genes)) for j in range(i)])


def test_correlation_error_is_its_definition(counts):
    imputed = np.random.default_rng(1).poisson(counts[:700]) + 0.5
    expected = np.sqrt(np.mean((pairs(imputed) - pairs(counts)) ** 2))
    assert correlation_error(counts, imputed) == pytest.approx(expected, rel=1e-10)


def test_mean_absolute_correlation_is_its_definition(counts):
    assert mean_absolute_correlation(counts) == pytest.approx(np.abs(pairs(counts)).mean(), rel=1e-10)


def test_known_answers():
    x = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
    assert mean_absolute_correlation(x) == pytest.approx(1)
    assert mean_absolute_correlation(x * [1, -1]) == pytest.approx(1)
    assert correlation_error(x, x * [1, -1]) == pytest.approx(2)
    assert mean_absolute_correlation([[0, 0], [0, 1], [1, 0], [1, 1]]) == pytest.approx(0)


def test_only_correlations_count(counts):
    assert correlation_error(counts, counts) == 0
    assert correlation_error(counts, counts * np.arange(1, 13) + 100) == pytest.approx(0, abs=1e-12)


def test_constant_genes_are_left_out(counts):
    """0.1 is no binary fraction: the mean of its copies is rounded, and must not make a variance."""
    truth, imputed = counts.copy(), 2 * counts + np.random.default_rng(2).normal(0, 3, counts.shape)
    truth[:, 3], imputed[:, 7] = 0.1, 0.1
    rest = np.delete(np.arange(12), [3, 7])
    assert correlation_error(truth, imputed) == pytest.approx(correlation_error(truth[:, rest], imputed[:, rest]))
    assert mean_absolute_correlation(truth) == pytest.approx(np.abs(pairs(np.delete(counts, 3, axis=1))).mean())
    assert np.isnan(mean_absolute_correlation(truth[:, 3:5]))
    assert np.isnan(correlation_error(truth[:, 3:5], imputed[:, 3:5]))


def test_rounding_is_no_variance(counts):
    """Profiles that are alike would else be scored by the correlations of their rounding errors."""
    flat = np.float32(3.7) + 1e-7 * np.random.default_rng(4).standard_normal((len(counts), 5))
    both = np.hstack([counts, flat])
    assert mean_absolute_correlation(both) == pytest.approx(mean_absolute_correlation(counts))
    assert correlation_error(both, both[::-1]) == pytest.approx(0, abs=1e-12)
    assert mean_absolute_correlation(1e-9 * counts) == pytest.approx(mean_absolute_correlation(counts))


def test_level_of_independent_genes():
    """E|r| of independent normal genes is Γ((n-1)/2) / (√π Γ(n/2)), about sqrt(2 / (π (n-1)))."""
    n = 30
    genes = np.random.default_rng(3).standard_normal((n, 200))
    level = special.gamma((n - 1) / 2) / (np.sqrt(np.pi) * special.gamma(n / 2))
    spread = np.sqrt((1 / (n - 1) - level**2) / (200 * 199 / 2))
    assert abs(mean_absolute_correlation(genes) - level) < 4 * spread
    assert level == pytest.approx(np.sqrt(2 / (np.pi * (n - 1))), rel=0.01)


def test_permuted_genes_have_no_more_than_that(counts):
    permuted = np.random.default_rng(4).permuted(counts, axis=0)
    level = np.sqrt(2 / (np.pi * 1499))
    assert mean_absolute_correlation(permuted) == pytest.approx(level, rel=0.3)
    assert mean_absolute_correlation(counts) > 10 * level


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix])
def test_sparse_and_dense_alike(counts, form):
    other = counts[::2] ** 2
    assert correlation_error(form(counts), form(other)) == pytest.approx(correlation_error(counts, other))
    assert mean_absolute_correlation(form(counts)) == pytest.approx(mean_absolute_correlation(counts))


def test_refuse(counts):
    with pytest.raises(ValueError, match=r"'truth': \(1500, 12\), 'imputed': \(1500, 11\)"):
        correlation_error(counts, counts[:, 1:])
    with pytest.raises(ValueError, match="imputed holds nan"):
        correlation_error(counts, np.where(counts > 3, np.nan, counts))
    with pytest.raises(ValueError, match="single row"):
        mean_absolute_correlation(counts[:1])
