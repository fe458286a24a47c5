import numpy as np
import pytest
from scipy import stats

from countsdiff.metrics import pool_imputations


def test_worked_example():
    # m = 3: estimates 1, 2, 3, variances 1, 1, 2, 20 complete degrees of freedom; Rubin (1987), Barnard & Rubin (1999)
    pooled = pool_imputations([1.0, 2.0, 3.0], [1.0, 1.0, 2.0], 20.0)
    within, between = 4 / 3, 4 / 3 * 1.0
    share = between / (within + between)  # 1/2
    df_imputation, df_observed = 2 / share**2, 21 / 23 * 20 * (1 - share)  # 8 and 9.13
    assert pooled.estimate == 2.0
    assert pooled.variance == pytest.approx(8 / 3)
    assert pooled.missing_information == pytest.approx(0.5)
    assert pooled.df == pytest.approx(8 * (210 / 23) / (8 + 210 / 23))
    assert pooled.df == pytest.approx(1 / (1 / df_imputation + 1 / df_observed))
    assert pooled.p_value == pytest.approx(2 * stats.t.sf(2 / np.sqrt(8 / 3), pooled.df))


def test_equal_imputations_are_measured_data_but_for_the_small_sample_correction():
    pooled = pool_imputations(np.full((5, 2), 1.5), np.full((5, 2), 0.25), [10.0, 1e9])
    np.testing.assert_array_equal(pooled.variance, 0.25)
    np.testing.assert_array_equal(pooled.missing_information, 0.0)
    np.testing.assert_allclose(pooled.df, [11 / 13 * 10, 1e9])


def test_without_variance_there_is_no_doubt():
    pooled = pool_imputations([[0.0, 2.0, -2.0]] * 2, np.zeros((2, 3)), 10.0)
    assert pooled.statistic.tolist() == [0.0, np.inf, -np.inf]
    assert pooled.p_value.tolist() == [1.0, 0.0, 0.0]


def test_of_any_number_of_cells_the_degrees_of_freedom_are_those_of_the_imputations():
    pooled = pool_imputations([[1.0, 2.0], [1.5, 2.0]], np.full((2, 2), 0.1), np.inf)
    large = pool_imputations([[1.0, 2.0], [1.5, 2.0]], np.full((2, 2), 0.1), 1e12)
    np.testing.assert_allclose(pooled.p_value, large.p_value, rtol=1e-6)
    np.testing.assert_allclose(pooled.df, [1.0 / pooled.missing_information[0] ** 2, np.inf])


def test_what_is_unknown_is_not_taken_for_no_difference():
    assert np.isnan(pool_imputations([1.0, 1.5], [np.nan, 0.1], 10.0).p_value)


def test_coverage_with_half_of_a_sample_missing():
    # mean of 20 normal numbers of which 10 are missing; proper imputation draws their law from its posterior
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(600):
        seen = rng.normal(size=10)
        estimates, variances = [], []
        for _ in range(8):
            sigma = seen.std(ddof=1) * np.sqrt(9 / rng.chisquare(9))
            full = np.r_[seen, rng.normal(seen.mean() + sigma * rng.normal() / np.sqrt(10), sigma, size=10)]
            estimates.append(full.mean())
            variances.append(full.var(ddof=1) / 20)
        covered.append(pool_imputations(estimates, variances, 19.0).p_value > 0.1)
    assert abs(np.mean(covered) - 0.9) < 0.05  # four standard errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0], 5.0), "two or more"),
        (([1.0, 2.0], [1.0], 5.0), r"\(2,\) and \(1,\)"),
        (([1.0, 2.0], [1.0, -1.0], 5.0), "-1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        pool_imputations(*arguments)


def test_what_is_no_number_stays_none():
    pooled = pool_imputations([[np.nan, 1.0], [1.0, 2.0]], [[1.0, np.nan], [1.0, 1.0]], 5)
    for values in (pooled.variance, pooled.missing_information, pooled.df, pooled.p_value):
        assert np.isnan(values).all()
    with pytest.raises(ValueError, match=r"df has shape \(3,\), an estimate \(2,\)"):
        pool_imputations([[1.0, 1.0], [1.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]], [1, 2, 3])
