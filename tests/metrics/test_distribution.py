import tracemalloc

import numpy as np
import pytest
from scipy import linalg, sparse, special, stats
from scipy.spatial.distance import pdist

from countsdiff.metrics import (
    distribution,
    energy_distance,
    frechet_distance,
    mmd,
    sliced_wasserstein,
    wasserstein_1d,
)

METRICS = (mmd, energy_distance, wasserstein_1d, sliced_wasserstein, frechet_distance)


@pytest.fixture
def samples():
    """Counts of two laws, more columns than `wasserstein_1d` sorts at a time."""
    rng = np.random.default_rng(0)
    return rng.poisson(2.0, (31, 70)), rng.poisson(3.0, (23, 70))


def naive(kernel, x, y):
    """The definition, pair by pair."""

    def within(z):
        return np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])

    return within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_mmd_is_its_definition(samples):
    x, y = samples
    median = np.median(pdist(np.vstack([x, y])))
    for given, width in ((None, median), (5.0, 5.0)):
        expected = naive(lambda a, b, h=width: np.exp(-np.sum((a - b) ** 2) / (2 * h**2)), x, y)
        assert mmd(x, y, bandwidth=given) == pytest.approx(expected, rel=1e-10)


def test_energy_distance_is_its_definition(samples):
    x, y = samples
    assert energy_distance(x, y) == pytest.approx(-naive(lambda a, b: np.linalg.norm(a - b), x, y), rel=1e-10)


def test_energy_distance_agrees_with_scipy(samples):
    """Scipy has one dimension, takes the root, and pairs cells with themselves."""
    x, y = (s[:, :1].astype(float) for s in samples)
    with_itself = stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    correction = pdist(x).mean() / len(x) + pdist(y).mean() / len(y)
    assert energy_distance(x, y) == pytest.approx(with_itself - correction, rel=1e-10)


@pytest.mark.parametrize("metric", [mmd, energy_distance])
def test_pair_metrics_in_many_blocks(samples, metric, monkeypatch):
    expected = metric(*samples)
    monkeypatch.setattr(distribution, "_MEMORY", 1e-3)  # five rows of 23 distances
    assert metric(*samples) == pytest.approx(expected, rel=1e-12)


def test_pair_metrics_need_little_memory():
    x, y = np.random.default_rng(0).standard_normal((2, 4500, 2))  # whole, 154 MiB of distances
    tracemalloc.start()
    mmd(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120 * 2**20


def test_mmd_is_unbiased():
    """Closed form for Gaussians; estimates from 4 and 3 cells, hundreds of them."""
    rng = np.random.default_rng(1)
    n_vars, shift, spread, width = 3, 0.8, 1.5, 1.2

    def mean_kernel(variance, distance):
        total = width**2 + variance
        return (width**2 / total) ** (n_vars / 2) * np.exp(-(distance**2) / (2 * total))

    truth = mean_kernel(2, 0) + mean_kernel(2 * spread**2, 0) - 2 * mean_kernel(1 + spread**2, shift)
    x = rng.standard_normal((600, 4, n_vars))
    y = rng.standard_normal((600, 3, n_vars)) * spread + shift / np.sqrt(n_vars)
    draws = [mmd(a, b, bandwidth=width) for a, b in zip(x, y, strict=True)]
    assert min(draws) < 0  # not clipped
    assert abs(np.mean(draws) - truth) < 4 * stats.sem(draws)
    assert stats.sem(draws) < 0.05 * (1 / 4 + 1 / 3)  # pairing cells with themselves would show


def test_energy_distance_is_unbiased():
    rng = np.random.default_rng(2)
    shift, spread = 0.7, 2.0

    def mean_distance(variance, distance):
        folded = np.sqrt(2 * variance / np.pi) * np.exp(-(distance**2) / (2 * variance))
        return folded + distance * special.erf(distance / np.sqrt(2 * variance))

    truth = 2 * mean_distance(1 + spread**2, shift) - mean_distance(2, 0) - mean_distance(2 * spread**2, 0)
    x, y = rng.standard_normal((600, 4, 1)), shift + spread * rng.standard_normal((600, 3, 1))
    draws = [energy_distance(a, b) for a, b in zip(x, y, strict=True)]
    assert min(draws) < 0
    assert abs(np.mean(draws) - truth) < 4 * stats.sem(draws)


def test_sample_against_itself_is_below_zero(samples):
    """Unbiased estimates expect another sample of the law; the same one is closer than that."""
    x = samples[0].astype(float)
    kernel = np.exp(-0.5 * pdist(x / 10.0) ** 2).mean()
    assert mmd(x, x, bandwidth=10.0) == pytest.approx(-2 * (1 - kernel) / len(x), rel=1e-9)
    assert energy_distance(x, x) == pytest.approx(-2 * pdist(x).mean() / len(x), rel=1e-9)


def test_median_distance_of_many_cells():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2501, 2)), rng.standard_normal((1700, 2)) + 1  # 4,201 cells: every third
    median = np.median(pdist(np.vstack([x[::3], y[::3]])))
    assert mmd(x, y) == pytest.approx(mmd(x, y, bandwidth=median), rel=1e-10)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, np.nan, np.inf])
def test_mmd_refuses_what_is_no_bandwidth(samples, bandwidth):
    with pytest.raises(ValueError, match=f"bandwidth is {bandwidth:g}"):
        mmd(*samples, bandwidth=bandwidth)


def test_mmd_refuses_a_median_of_zero():
    with pytest.raises(ValueError, match="bandwidth is 0 .*median"):
        mmd(np.zeros((5, 2)), np.zeros((5, 2)))


def test_wasserstein_agrees_with_scipy(samples):
    x, y = samples
    expected = [stats.wasserstein_distance(a, b) for a, b in zip(x.T, y.T, strict=True)]
    result = wasserstein_1d(x, y)
    assert result.shape == (70,)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_wasserstein_of_known_laws(samples):
    x, _ = samples
    np.testing.assert_allclose(wasserstein_1d(x, np.repeat(x, 3, axis=0)), 0, atol=1e-12)
    np.testing.assert_allclose(wasserstein_1d(x, x + np.linspace(-2, 2, 70)), np.abs(np.linspace(-2, 2, 70)))
    normal = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    assert wasserstein_1d(normal, 3 * normal)[0] == pytest.approx(2 * np.sqrt(2 / np.pi), rel=1e-3)


def test_sliced_wasserstein_is_a_mean_over_lines(samples):
    x, y = samples
    directions = np.random.default_rng(5).standard_normal((70, 8))
    lines = [d / np.linalg.norm(d) for d in directions.T]
    expected = np.mean([stats.wasserstein_distance(x @ d, y @ d) for d in lines])
    assert sliced_wasserstein(x, y, n_projections=8, seed=5) == pytest.approx(expected, rel=1e-12)
    assert sliced_wasserstein(x[:, :1], y[:, :1]) == pytest.approx(wasserstein_1d(x[:, :1], y[:, :1])[0])


def test_sliced_wasserstein_of_two_points():
    """Lines spread evenly over the sphere see a shift v as |v| Γ(d/2) / (√π Γ((d+1)/2)) on average."""
    x, shift = np.zeros((2, 5)), np.array([3.0, 0, 0, 4.0, 0])
    expected = 5 * special.gamma(2.5) / (np.sqrt(np.pi) * special.gamma(3))
    assert sliced_wasserstein(x, x + shift, n_projections=40_000) == pytest.approx(expected, rel=0.02)
    assert sliced_wasserstein(x, x + shift, seed=1) != sliced_wasserstein(x, x + shift, seed=2)


def test_sliced_wasserstein_refuses_no_lines(samples):
    with pytest.raises(ValueError, match="n_projections is 0"):
        sliced_wasserstein(*samples, n_projections=0)


def test_frechet_distance_is_the_formula_of_fid():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((3000, 6)) @ rng.standard_normal((6, 6))  # more rows than a block
    y = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6)) + rng.standard_normal(6)
    c, d = np.cov(x.T), np.cov(y.T)
    shift = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    expected = shift + np.trace(c + d - 2 * linalg.sqrtm(c @ d).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_in_one_dimension():
    x, y = np.random.default_rng(7).standard_normal((2, 50, 1)) * [[[1.0]], [[3.0]]]
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected)


def test_frechet_distance_of_fewer_cells_than_features():
    """Two cells have covariance a a' with a = difference / √2, for which the trace is |a|² + |b|² - 2 |a'b|."""
    x, y = np.random.default_rng(8).standard_normal((2, 2, 40))
    a, b = ((s[0] - s[1]) / np.sqrt(2) for s in (x, y))
    expected = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + a @ a + b @ b - 2 * abs(a @ b)
    assert frechet_distance(x, y) == pytest.approx(expected)


@pytest.mark.parametrize("n_obs", [5, 500])
def test_frechet_distance_sees_small_differences(n_obs):
    """Far below the rounding error of the traces; neither negative nor lost in it."""
    x = 10 * np.random.default_rng(9).standard_normal((n_obs, 20))
    assert 0 <= frechet_distance(x, x) < 1e-18
    assert frechet_distance(x, x + 1e-6) == pytest.approx(20 * 1e-12, rel=1e-3)
    larger = x.mean(axis=0) + (x - x.mean(axis=0)) * (1 + 1e-6)
    assert frechet_distance(x, larger) == pytest.approx(1e-12 * np.cov(x.T).trace(), rel=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_symmetric_and_invariant_to_shifts_of_both(samples, metric):
    x, y = samples
    expected = metric(x, y)
    np.testing.assert_allclose(metric(y, x), expected, rtol=1e-9)
    np.testing.assert_allclose(metric(x + 5.0, y + 5.0), expected, rtol=1e-9)


@pytest.mark.parametrize("metric", [mmd, energy_distance])
def test_distances_do_not_cancel_far_from_the_origin(samples, metric):
    x, y = samples
    np.testing.assert_allclose(metric(x + 1e8, y + 1e8), metric(x, y), rtol=1e-9)


@pytest.mark.parametrize(
    ("metric", "power"),
    [(mmd, 0), (energy_distance, 1), (wasserstein_1d, 1), (sliced_wasserstein, 1), (frechet_distance, 2)],
)
def test_units(samples, metric, power):
    x, y = samples
    np.testing.assert_allclose(metric(4.0 * x, 4.0 * y), 4.0**power * metric(x, y), rtol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix])
def test_sparse_and_dense_alike(samples, metric, form):
    x, y = samples
    np.testing.assert_allclose(metric(form(x), form(y)), metric(x, y), rtol=1e-10)
    np.testing.assert_allclose(metric(form(x), y), metric(x, y), rtol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_refuse(samples, metric):
    x, y = samples
    with pytest.raises(ValueError, match=r"\(31, 70\).*\(23, 69\)"):
        metric(x, y[:, 1:])
    with pytest.raises(ValueError, match=r"\(31,\)"):
        metric(x[:, 0], y[:, 0])
    with pytest.raises(ValueError, match=r"\(0, 70\)"):
        metric(x[:0], y)
    with pytest.raises(ValueError, match="y has a single row"):
        metric(x, y[:1])
    for value in (np.nan, np.inf):
        for form in (np.asarray, sparse.csr_matrix):
            with pytest.raises(ValueError, match=f"y holds {value}"):
                metric(x, form(np.where(y == y.max(), value, y)))


def test_tell_other_laws_from_the_same_law():
    """Differences in mean, spread and dependence alone; the last is nothing to distances of single columns."""
    rng = np.random.default_rng(10)
    truth, same, other = rng.standard_normal((3, 400, 2))
    others = {"mean": other + 0.5, "spread": 1.6 * other, "dependence": other[:, [0, 0]]}
    for metric in (mmd, energy_distance, sliced_wasserstein, frechet_distance):
        for law, sample in others.items():
            assert metric(truth, sample) > 2 * abs(metric(truth, same)), (metric.__name__, law)
    assert wasserstein_1d(truth, others["dependence"]).max() < 2 * wasserstein_1d(truth, same).max()
