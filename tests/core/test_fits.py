import math

import pytest
import torch

from countsdiff.core.fits import (
    fit_level,
    fit_level_of_law,
    fit_means,
    fit_memory,
    fit_sharpness,
    fit_slope,
    fit_tail,
)
from countsdiff.core.heads import multiplier


def test_finds_the_tail_that_was_there(generator):
    mean = torch.distributions.Gamma(0.5, 0.05).sample((200_000,))
    shape, tail = torch.full_like(mean, 0.3), 5.0
    true_shape = shape * (1 + mean / tail)
    rates = torch._standard_gamma(true_shape, generator=generator) / true_shape * mean
    counts = torch.poisson(rates, generator=generator)
    assert fit_tail(counts, mean, shape) == pytest.approx(tail, rel=0.1)


def test_matches_the_squared_residuals():
    counts, mean, shape = torch.tensor([0.0, 40.0, 3.0]), torch.tensor([1.0, 25.0, 2.0]), torch.tensor([2.0, 0.1, 1.0])
    tail = fit_tail(counts, mean, shape)
    variance = mean + mean.square() / (shape * (1 + mean / tail))
    assert float(variance.sum()) == pytest.approx(float((counts - mean).square().sum()), rel=1e-6)


def test_laws_that_are_too_narrow_are_widened():
    counts, mean, shape = (
        torch.tensor([0.0, 50.0, 1.0]),
        torch.tensor([20.0, 20.0, 0.5]),
        torch.tensor([90.0, 60.0, 1.0]),
    )
    tail = fit_tail(counts, mean, shape)
    assert tail < 0.0
    variance = mean + mean.square() / shape * (1 + mean / -tail)
    assert float(variance.sum()) == pytest.approx(float((counts - mean).square().sum()), rel=1e-6)


def test_residuals_below_poisson_take_the_narrowest_laws():
    counts = mean = torch.tensor([20.0, 3.0])
    assert 0.0 < fit_tail(counts, mean, torch.ones(2)) < 1e-3


def test_level_balances_the_sums():
    assert fit_level(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 3.0])) == pytest.approx(0.75)
    assert fit_level(torch.zeros(2), torch.tensor([1.0, 3.0])) == 1.0


def test_level_of_few_counts_stays_near_one():
    # where the residuals leave as much uncertain as levels are spread, it goes half of the way
    counts, mean = torch.tensor([30.0, 25.0]), torch.tensor([26.0, 24.0])
    error = float((counts - mean).square().sum()) ** 0.5 / 50.0
    assert fit_level(counts, mean, spread=error) == pytest.approx(1.1**0.5)
    assert fit_level(counts, mean) == pytest.approx(1.1)
    assert fit_level(counts.repeat(10_000), mean.repeat(10_000), spread=0.05) == pytest.approx(1.1, rel=1e-3)


def test_level_of_a_law_is_the_most_likely(generator):
    mean, shape = torch.rand(5_000, generator=generator) * 4.0, torch.full((5_000,), 0.7)
    counts = torch.poisson(1.3 * mean / 0.7 * torch._standard_gamma(shape, generator=generator), generator=generator)
    level = fit_level_of_law(counts, mean, shape)
    logits = [torch.log(a * level * mean / shape) for a in (0.99, 1.0, 1.01)]
    less, best, more = (torch.distributions.NegativeBinomial(shape, logits=v).log_prob(counts).sum() for v in logits)
    assert best > max(less, more)
    assert fit_level_of_law(1.3 * mean, mean, shape) == pytest.approx(1.3, rel=1e-5)
    assert fit_level_of_law(torch.zeros(2), torch.ones(2), torch.ones(2)) == 1.0


def test_a_variable_that_has_half_of_all_counts_does_not_rule_the_level_of_a_law(generator):
    mean, shape = torch.full((20, 301), 0.5), torch.full((20, 301), 2.0)
    mean[:, 0], shape[:, 0] = 150.0, 0.1
    levels, sums = [], []
    for _ in range(20):
        counts = torch.poisson(mean / shape * torch._standard_gamma(shape, generator=generator), generator=generator)
        levels.append(fit_level_of_law(*(v.flatten() for v in (counts, mean, shape))))
        sums.append(fit_level(counts.flatten(), mean.flatten()))
    # of 6,000 counts with a variance of .625 and 20 of 2,250,000, by their information on the logarithm of the mean
    error = (6_000 * 0.5**2 / 0.625 + 20 * 0.1) ** -0.5
    assert torch.tensor(levels).log().abs().max() < 4.0 * error
    assert torch.tensor(sums).log().std() > 5.0 * error


@pytest.mark.parametrize("slope", [0.0, 0.4, 1.0, 1.2])
def test_finds_the_slope_that_was_there(slope, generator):
    base = 0.2 + 5.0 * torch.rand(100_000, generator=generator)
    output = 1.5 * torch.randn(100_000, generator=generator)
    counts = torch.poisson(1.3 * base * multiplier(slope * output), generator=generator)  # the level does not matter
    assert fit_slope(counts, base * multiplier(output), base) == pytest.approx(slope, abs=0.02)


def test_slope_of_few_counts_stays_near_one(generator):
    base, output = torch.ones(40), torch.randn(40, generator=generator)
    counts = torch.poisson(base, generator=generator)
    free, held = (fit_slope(counts, multiplier(output), base, spread) for spread in (math.inf, 0.02))
    assert free < 0.5
    assert held == pytest.approx(1.0, abs=0.05)
    assert fit_slope(torch.zeros(40), multiplier(output), base) == 1.0


@pytest.mark.parametrize("left", [0.0, 0.3, 1.0])
def test_memory_is_the_excess_variance_that_is_left(left, generator):
    mean, shape = torch.full((400_000,), 3.0), torch.full((400_000,), 2.0)
    rates = mean + (left * mean.square() / shape).sqrt() * torch.randn(len(mean), generator=generator).clamp(-2.4, 2.4)
    counts = torch.poisson(rates.clamp(min=0.0), generator=generator)
    spread = float((rates.clamp(min=0.0) - mean).square().sum() / (mean.square() / shape).sum())
    assert fit_memory(counts, mean, shape) == pytest.approx(spread, abs=0.02)
    assert fit_memory(counts, torch.zeros_like(mean), shape) == 1.0


@pytest.mark.parametrize("sharpness", [0.7, 1.0, 1.6])
def test_finds_the_sharpness_that_was_there(sharpness, generator):
    mean = torch.distributions.Gamma(0.5, 0.5).sample((200_000,))
    shape = torch.full_like(mean, 0.8)
    rates = torch._standard_gamma(sharpness * shape, generator=generator) / (sharpness * shape) * mean
    counts = torch.poisson(rates, generator=generator)
    assert fit_sharpness(counts, mean, shape) == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize("sharpness", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("largest", [200.0, 1e5])
def test_finds_the_sharpness_of_counts_that_are_never_zero(sharpness, largest, generator):
    mean = torch.linspace(50.0, largest, 200_000, dtype=torch.float64)
    shape = torch.full_like(mean, 8.0)
    rates = torch._standard_gamma(sharpness * shape, generator=generator) / (sharpness * shape) * mean
    counts = torch.poisson(rates, generator=generator)
    assert (counts == 0).double().mean() < 1e-3
    assert fit_sharpness(counts, mean, shape) == pytest.approx(sharpness, rel=0.05)


def test_sharpness_makes_the_zeros_add_up():
    counts, mean, shape = (
        torch.tensor([0.0, 4.0, 0.0, 3.0]),
        torch.tensor([0.5, 3.0, 1.0, 2.0]),
        torch.tensor([1.0, 1.0, 2.0, 0.5]),
    )
    sharp = fit_sharpness(counts, mean, shape) * shape
    assert float((sharp / (sharp + mean)).pow(sharp).sum()) == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize(("counts", "expected"), [([0.0, 0.0], 0.5), ([1.0, 1.0], 2.0)])
def test_sharpness_keeps_within_a_factor_of_two(counts, expected):
    assert fit_sharpness(torch.tensor(counts), torch.ones(2), torch.ones(2)) == pytest.approx(expected)


@pytest.mark.parametrize("fit", [fit_sharpness, fit_tail])
def test_a_weight_of_two_counts_an_entry_twice(fit, generator):
    mean = torch.distributions.Gamma(0.5, 0.5).sample((500,))
    counts = torch.poisson(mean * 1.3, generator=generator)
    laws = mean, torch.ones(500)
    weight = torch.ones(500, dtype=torch.float64)
    weight[:200] = 2.0
    twice = [torch.cat([v, v[:200]]) for v in (counts, *laws)]
    assert fit(counts, *laws, weight) == pytest.approx(fit(*twice), rel=1e-9)


def test_finds_the_factors_that_were_there(generator):
    mean = torch.full((5_000,), 30.0, dtype=torch.float64)
    factors = torch._standard_gamma(torch.full_like(mean, 4.0), generator=generator) / 4.0
    index = torch.full_like(mean, 2.0)
    counts = 2.0 * torch.poisson(factors * mean / 2.0, generator=generator)
    found = fit_means(counts, mean, index)
    # the posterior mean under the law that drew them, whose shape 4 had to be found
    torch.testing.assert_close(found, (counts / 2.0 + 4.0) / (mean / 2.0 + 4.0), rtol=0.02, atol=0.02)
    assert float((found - factors).square().mean()) < float((counts / mean - factors).square().mean())


def test_noise_alone_moves_no_mean(generator):
    mean = torch.full((5_000,), 30.0, dtype=torch.float64)
    found = fit_means(torch.poisson(mean, generator=generator), mean, torch.ones_like(mean))
    assert float((found - 1.0).abs().max()) < 0.05


def test_what_was_not_predicted_keeps_its_mean():
    mean = torch.tensor([0.0, 100.0, 100.0], dtype=torch.float64)
    found = fit_means(torch.tensor([0.0, 300.0, 20.0], dtype=torch.float64), mean, torch.ones_like(mean))
    assert found[0] == 1.0
    assert found[1] > 2.5
    assert found[2] < 0.3
