import numpy as np
import pytest
import torch
from scipy import special, stats

from countsdiff.core import CountLaw, RowGenerator, counting
from countsdiff.core.count_law import mean_log1p
from countsdiff.core.counting import (
    binomial_quantile,
    negative_binomial_quantile,
    poisson_quantile,
    regularised_beta,
)

# the ends are the smallest and largest numbers RowGenerator draws; none is a tie P(X ≤ k) = u of the laws below
UNIFORM = np.array([2.0**-24, 1.3e-6, 1e-4, 0.013, 0.201, 0.5003, 0.71, 0.93, 0.991, 0.99993, 1 - 2.0**-24])
# laws of means beyond 16 are walked from elsewhere than 0; beyond 745 P(X = 0) underflows
MEANS = np.array([0.0, 1e-8, 1e-3, 0.3, 1.0, 3.7, 40.0, 47.0, 48.5, 60.0, 300.0, 1000.0, 1e4])
SHAPES = np.array([0.01, 0.3, 2.5, 40.0, 1e4])
TRIALS = np.array([0.0, 1.0, 2.0, 5.0, 17.0, 48.0, 49.0, 60.0, 300.0, 2000.0, 1e4])
PROBABILITIES = np.array([0.0, 1e-7, 1e-3, 0.05, 0.3, 0.5, 0.51, 0.77, 0.95, 0.999, 1.0])


def exact(*arrays) -> list[torch.Tensor]:
    return [torch.as_tensor(a, dtype=torch.float64) for a in arrays]


def grid(*arrays) -> list[np.ndarray]:
    return [a.ravel() for a in np.meshgrid(*arrays)]


def test_poisson_quantiles_equal_scipy():
    u, mean = grid(UNIFORM, MEANS)
    np.testing.assert_array_equal(poisson_quantile(*exact(u, mean)), stats.poisson.ppf(u, mean))


def test_negative_binomial_quantiles_equal_scipy():
    u, mean, shape = grid(UNIFORM, MEANS, SHAPES)
    expected = stats.nbinom.ppf(u, shape, shape / (shape + mean))
    np.testing.assert_array_equal(negative_binomial_quantile(*exact(u, shape, mean)), expected)


def test_binomial_quantiles_equal_scipy():
    u, trials, probability = grid(UNIFORM, TRIALS, PROBABILITIES)
    expected = stats.binom.ppf(u, trials, probability)
    np.testing.assert_array_equal(binomial_quantile(*exact(u, trials, probability)), expected)


def test_no_starting_point_is_needed_to_be_good():
    # laws so skewed that a normal law says nothing of their quantiles: found by bisection, upwards and downwards
    u, mean, shape = grid(UNIFORM, np.array([500.0, 3e4]), np.array([0.02, 0.2, 0.7]))
    expected = stats.nbinom.ppf(u, shape, shape / (shape + mean))
    np.testing.assert_array_equal(negative_binomial_quantile(*exact(u, shape, mean)), expected)


def test_nothing_is_lost_far_below_the_starting_point():
    rng = np.random.default_rng(0)
    mean, shape = np.exp(rng.uniform(3.0, 11.5, 3000)), np.exp(rng.uniform(0.0, 2.3, 3000))
    for u in (1e-12, 1e-10, 1e-7, 1e-4):
        quantiles = negative_binomial_quantile(*exact(np.full(3000, u), shape, mean))
        # scipy's may be -1 where even zero suffices
        np.testing.assert_array_equal(quantiles, stats.nbinom.ppf(u, shape, shape / (shape + mean)).clip(min=0.0))


def test_quantiles_do_not_depend_on_how_many_are_asked_for(monkeypatch):
    rng = np.random.default_rng(0)
    u, shape, mean = exact(rng.random(200_000), np.exp(rng.normal(size=200_000)), np.exp(rng.normal(2.0, 2.0, 200_000)))
    together = negative_binomial_quantile(u, shape, mean)
    some = slice(None, None, 40)
    assert torch.equal(together[some], negative_binomial_quantile(u[some], shape[some], mean[some]))
    monkeypatch.setattr(counting, "_most_at_once", lambda device: 2**18)  # as on a GPU
    assert torch.equal(together, negative_binomial_quantile(u, shape, mean))


def test_pixels_are_as_exact_as_molecules():
    # large counts are walked to from where a normal law puts them
    rng = np.random.default_rng(0)
    u, n, q = rng.random(20_000), rng.integers(0, 256, 20_000).astype(float), rng.random(20_000)
    np.testing.assert_array_equal(binomial_quantile(*exact(u, n, q)), stats.binom.ppf(u, n, q))
    np.testing.assert_array_equal(poisson_quantile(*exact(u, n * q)), stats.poisson.ppf(u, n * q))


def test_binomial_quantiles_never_exceed_the_trials():
    # the cumulative sum of the recursion may stop short of 1 by a rounding error
    u = torch.tensor(np.nextafter(1.0, 0.0), dtype=torch.float64)
    trials, probability = exact(*grid(np.arange(0.0, 70.0), np.linspace(0.0, 1.0, 21)))
    assert bool((binomial_quantile(u, trials, probability) <= trials).all())


@pytest.mark.parametrize(
    ("law", "quantile"),
    [
        (stats.poisson(45.0), lambda u: poisson_quantile(u, torch.tensor(45.0))),
        (stats.nbinom(2.0, 0.05), lambda u: negative_binomial_quantile(u, torch.tensor(2.0), torch.tensor(38.0))),
        (stats.binom(90, 0.5), lambda u: binomial_quantile(u, torch.tensor(90.0), torch.tensor(0.5))),
    ],
    ids=["poisson", "negative_binomial", "binomial"],
)
def test_no_count_is_skipped(law, quantile):
    k = np.arange(10.0, 80.0)
    middle = (law.cdf(k - 1) + law.cdf(k)) / 2  # of the step of the distribution function at k
    np.testing.assert_array_equal(quantile(*exact(middle)), k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_broadcast_and_keep_the_dtype_of_u(dtype):
    u = torch.full((3, 1), 0.7, dtype=dtype)
    for k in (
        poisson_quantile(u, torch.ones(4)),
        negative_binomial_quantile(u, torch.ones(4), torch.ones(1, 4)),
        binomial_quantile(u, torch.full((4,), 9.0), torch.tensor(0.5)),
    ):
        assert k.shape == (3, 4)
        assert k.dtype == dtype


@pytest.mark.parametrize("mean", [0.05, 4.0, 60.0])
@pytest.mark.parametrize("shape", [None, 0.3, 5.0])
def test_quantiles_of_uniform_numbers_are_exact_draws(mean, shape, assert_law):
    # law: Poisson(mean), or NegBin(shape, mean)
    u = RowGenerator(0, torch.arange(50_000)).uniform()
    law = CountLaw(torch.tensor(mean), None if shape is None else torch.tensor(shape))
    truth = stats.poisson(mean) if shape is None else stats.nbinom(shape, shape / (shape + mean))
    assert_law(law.quantile(u), truth)
    assert float(law.std) == pytest.approx(truth.std(), rel=1e-5)


@pytest.mark.parametrize(("trials", "probability"), [(1, 0.3), (9, 0.5), (9, 0.8), (200, 0.02), (200, 0.6)])
def test_binomial_quantiles_of_uniform_numbers_are_exact_draws(trials, probability, assert_law):
    u = RowGenerator(1, torch.arange(50_000)).uniform()
    draws = binomial_quantile(u, torch.tensor(float(trials)), torch.tensor(probability))
    assert_law(draws, stats.binom(trials, probability))


@pytest.mark.parametrize("shape", [None, 0.05, 0.3, 2.0, 50.0, 1e4])
@pytest.mark.parametrize("mean", [1e-4, 0.1, 1.0, 20.0, 1e3])
def test_mean_log1p_equals_the_sum_over_all_counts(mean, shape):
    law = stats.poisson(mean) if shape is None else stats.nbinom(shape, shape / (shape + mean))
    k = np.arange(law.ppf(1 - 1e-14) + 10)
    scale = np.array([1e-4, 0.1, 1.0, 30.0, 1e3])
    expected = (law.pmf(k) * np.log1p(scale[:, None] * k)).sum(1)
    counts = CountLaw(*exact(mean), None if shape is None else exact(shape)[0])
    got = counts.mean_log1p(*exact(scale))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_mean_log1p_of_nothing_is_zero():
    assert float(mean_log1p(torch.tensor(0.0), torch.tensor(0.5), torch.tensor(100.0))) == 0.0


def test_regularised_beta_equals_scipy():
    scales = np.logspace(-2, 4, 13)
    a, b, x = grid(scales, scales, np.array([0.0, 1e-9, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1 - 1e-9, 1.0]))
    np.testing.assert_allclose(regularised_beta(*exact(a, b, x)), special.betainc(a, b, x), rtol=1e-8, atol=1e-10)


def test_what_is_no_law_has_no_quantiles():
    u, nan = torch.tensor([0.3, 0.9]), torch.tensor([float("nan"), 2.0])
    two = torch.full((2,), 2.0)
    for found in (poisson_quantile(u, nan), negative_binomial_quantile(u, two, nan)):
        assert found.isnan().tolist() == [True, False]
