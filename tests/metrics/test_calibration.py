import numpy as np
import pytest
from scipy import sparse, stats

from countsdiff.metrics import (
    interval_coverage,
    open_problems_mse,
    pit_ks,
    variance_ratio,
    zero_fraction_error,
)


@pytest.fixture
def calibrated():
    """Counts and the negative binomials they were drawn from."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(1.0, 2.0, 20_000)
    law = stats.nbinom(2, 2 / (2 + mean))
    return law.rvs(random_state=rng), law


def test_zero_fraction_and_variance_of_known_samples():
    truth, sample = [0, 0, 0, 4], [0, 2, 2, 4]
    assert zero_fraction_error(truth, sample) == -0.5
    assert variance_ratio(truth, sample) == pytest.approx(2 / 3)
    assert np.isnan(variance_ratio([1, 1], [0, 2]))


def test_sample_of_the_same_law_has_no_error(calibrated):
    truth, law = calibrated
    sample = law.rvs(random_state=1)
    assert zero_fraction_error(truth, sample) == pytest.approx(0, abs=0.01)
    assert variance_ratio(truth, sample) == pytest.approx(1, abs=0.06)
    assert variance_ratio(truth, law.mean()) < 0.7


def test_coverage_counts_both_ends():
    assert interval_coverage([0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 1, 3]) == 0.75


def test_coverage_is_what_the_law_says(calibrated):
    truth, law = calibrated
    lower, upper = law.ppf(0.05), law.ppf(0.95)
    nominal = np.mean(law.cdf(upper) - law.cdf(lower - 1))
    assert interval_coverage(truth, lower, upper) == pytest.approx(nominal, abs=0.01)


def test_coverage_of_unknown_counts_is_unknown():
    assert np.isnan(interval_coverage([np.nan, 1], [0, 0], [2, 2]))


def test_coverage_refuses_a_reversed_interval():
    with pytest.raises(ValueError, match=r"entry 1 .*\[3, 2\]"):
        interval_coverage([0, 2], [0, 3], [0, 2])


def test_pit_agrees_with_scipy():
    at = np.random.default_rng(3).random(500) ** 2
    assert pit_ks(at, at) == pytest.approx(stats.kstest(at, "uniform").statistic)


def test_pit_of_a_calibrated_prediction_is_uniform(calibrated):
    truth, law = calibrated
    distances = [pit_ks(law.cdf(truth - 1), law.cdf(truth), seed) for seed in range(3)]
    assert max(distances) < stats.kstwo.isf(1e-3, len(truth))
    assert len(set(distances)) == 3
    assert pit_ks(law.cdf(truth - 1), law.cdf(truth), 0) == distances[0]


def test_pit_finds_a_wrong_prediction(calibrated):
    truth, law = calibrated
    poisson = stats.poisson(law.mean())
    assert pit_ks(poisson.cdf(truth - 1), poisson.cdf(truth)) > 5 * stats.kstwo.isf(1e-3, len(truth))


def test_pit_of_a_point_mass():
    """Nothing but v is left where the count was certain; an impossible count counts fully."""
    assert pit_ks(np.zeros(10_000), np.ones(10_000)) < 0.02
    assert pit_ks(np.ones(10), np.ones(10)) == 1


@pytest.mark.parametrize(("below", "at"), [(0.5, 0.4), (-0.1, 0.5), (0.5, 1.1), (np.nan, 1.0)])
def test_pit_refuses_what_is_no_distribution_function(below, at):
    with pytest.raises(ValueError, match="entry 1"):
        pit_ks([0, below], [1, at])


def test_open_problems_mse_of_known_matrices():
    test, denoised = [[1, 1], [0, 0]], [[3, 1], [0, 2]]
    expected = (np.log(5001 / 7501) ** 2 + np.log(5001 / 2501) ** 2 + np.log(10_001) ** 2) / 4
    assert open_problems_mse(test, denoised) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
def test_open_problems_mse_agrees_with_scanpy_for_any_depth_and_format():
    import anndata as ad
    import scanpy as sc

    rng = np.random.default_rng(0)
    test, denoised = rng.poisson(0.3, (2000, 20)), rng.gamma(0.3, 1.0, (2000, 20))  # more rows than a block
    logs = []
    for matrix in (test, denoised):
        adata = ad.AnnData(matrix.astype(np.float64))
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        logs.append(adata.X)
    expected = np.mean((logs[0] - logs[1]) ** 2)
    assert open_problems_mse(test, denoised) == pytest.approx(expected)
    depth = rng.gamma(2.0, 1.0, (2000, 1))
    assert open_problems_mse(sparse.csc_matrix(test), sparse.csr_array(denoised * depth)) == pytest.approx(expected)


def test_open_problems_mse_refuses():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(1, 2\)"):
        open_problems_mse(np.ones((2, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="-1"):
        open_problems_mse(np.ones((2, 2)), -np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"\(0, 2\)"):
        open_problems_mse(np.ones((0, 2)), np.ones((0, 2)))


def test_of_what_is_no_number_zeros_are_not_known():
    assert np.isnan(zero_fraction_error([0.0, np.nan], [0.0, 0.0]))
    assert np.isnan(zero_fraction_error([0.0, 0.0], [np.nan, 0.0]))
