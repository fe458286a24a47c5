import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from countsdiff.metrics import bootstrap_interval, rmse


def test_interval_of_a_mean_is_that_of_the_normal_law():
    x = np.random.default_rng(0).gamma(2.0, 1.0, 2000)
    low, high = bootstrap_interval(np.mean, x, n_resamples=2000, level=0.9)
    margin = stats.norm.ppf(0.95) * x.std() / np.sqrt(len(x))
    assert (low, high) == pytest.approx((x.mean() - margin, x.mean() + margin), abs=0.1 * margin)


def test_agrees_with_scipy():
    rng = np.random.default_rng(1)
    truth = rng.poisson(3.0, 400)
    prediction = truth + rng.normal(0, 1, 400)
    result = bootstrap_interval(rmse, truth, prediction, n_resamples=2000)
    expected = stats.bootstrap(
        (truth, prediction), rmse, paired=True, vectorized=False, n_resamples=2000, method="percentile", random_state=2
    ).confidence_interval
    assert result == pytest.approx((expected.low, expected.high), abs=0.1 * (expected.high - expected.low))


def test_covers_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(2).normal(5.0, 1.0, (300, 100))
    intervals = [bootstrap_interval(np.mean, s, level=0.8, seed=i) for i, s in enumerate(samples)]
    covered = sum(low <= 5.0 <= high for low, high in intervals)
    assert stats.binomtest(covered, 300, 0.8).pvalue > 1e-3


def test_every_cell_is_drawn_alike_and_with_replacement():
    draws = []
    bootstrap_interval(lambda cells: draws.append(cells) or 0.0, np.arange(20), n_resamples=3000)
    times = np.array([np.bincount(cells, minlength=20) for cells in draws])
    assert stats.chisquare(times.sum(axis=0)).pvalue > 1e-3
    observed = np.bincount(np.minimum(times[:, 0], 4), minlength=5)
    law = stats.binom(20, 1 / 20)
    expected = np.append(law.pmf(range(4)), law.sf(3)) * 3000
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_rows_of_all_arrays_stay_together():
    matrix = np.random.default_rng(3).poisson(1.0, (50, 4))

    def differences(dense, csr, total):
        assert dense.shape == csr.shape == (50, 4)
        return np.abs(dense - csr.toarray()).sum() + np.abs(dense.sum(axis=1) - total).sum()

    assert bootstrap_interval(differences, matrix, sparse.csr_matrix(matrix), matrix.sum(axis=1)) == (0, 0)


def test_level_and_seed():
    x = np.random.default_rng(4).normal(size=100)
    narrow, wide = bootstrap_interval(np.mean, x, level=0.5), bootstrap_interval(np.mean, x, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap_interval(np.mean, x, seed=1) == bootstrap_interval(np.mean, x, seed=1)
    assert bootstrap_interval(np.mean, x, seed=1) != bootstrap_interval(np.mean, x, seed=2)


def test_refuses():
    x = np.arange(5)
    for level in (0, 1, 95, np.nan):
        with pytest.raises(ValueError, match=f"level is {level}"):
            bootstrap_interval(np.mean, x, level=level)
    with pytest.raises(ValueError, match="n_resamples is 0"):
        bootstrap_interval(np.mean, x, n_resamples=0)
    with pytest.raises(ValueError, match=r"\[5, 4\] rows"):
        bootstrap_interval(rmse, x, x[1:])
    with pytest.raises(ValueError, match=r"\[0\] rows"):
        bootstrap_interval(np.mean, x[:0])


def test_lists_and_data_frames_are_rows_of_cells():
    values = np.arange(12.0).reshape(6, 2)
    expected = bootstrap_interval(np.mean, values, seed=1)
    assert bootstrap_interval(np.mean, values.tolist(), seed=1) == expected
    assert bootstrap_interval(np.mean, pd.DataFrame(values), seed=1) == expected
