import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from countsdiff.core import (
    LogitLinearSchedule,
    TimeSampler,
    bregman_loss,
    get_schedule,
    get_weight,
    negative_binomial_loss,
)

SCHEDULES = ["cosine", "linear", "logit_linear"]


@pytest.mark.parametrize("probabilities", [[0.9, 0.1], [0.2, 0.5, 0.0, 0.3], [0.999, 0.0, 0.0, 0.0, 0.001]])
def test_bregman_loss_is_smallest_at_the_mean(probabilities):
    weight = torch.tensor(probabilities, dtype=torch.float64)
    y = torch.arange(len(weight), dtype=torch.float64)
    rate = (weight * y).sum().requires_grad_()

    def loss(r: torch.Tensor) -> torch.Tensor:
        return (weight * bregman_loss(r.expand_as(y), y)).sum()

    (gradient,) = torch.autograd.grad(loss(rate), rate)
    assert float(gradient) == pytest.approx(0.0, abs=1e-8)
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert bool(loss(factor * rate) > loss(rate))


def test_bregman_loss_is_the_poisson_likelihood():
    rate, y = (v.ravel() for v in np.meshgrid(np.logspace(-3, 3, 13), np.arange(8.0)))
    got = bregman_loss(torch.as_tensor(rate), torch.as_tensor(y))
    np.testing.assert_allclose(got, -stats.poisson.logpmf(y, rate) - special.gammaln(y + 1), rtol=1e-9, atol=1e-8)


def test_negative_binomial_loss_equals_scipy():
    y, shape, mean = (
        v.ravel() for v in np.meshgrid([0.0, 1.0, 2.0, 17.0, 400.0], [0.05, 1.0, 8.0, 1e3], [1e-3, 0.4, 5.0, 300.0])
    )
    got = negative_binomial_loss(*(torch.as_tensor(v) for v in (y, shape, mean)))
    expected = -stats.nbinom.logpmf(y, shape, shape / (shape + mean)) - special.gammaln(y + 1)
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8)


def test_negative_binomial_loss_finds_the_shape():
    # a proper scoring rule: over the law itself the gradient vanishes at the true shape and mean
    true_shape, true_mean = 1.5, 4.0
    y = np.arange(400.0)
    law = torch.as_tensor(stats.nbinom.pmf(y, true_shape, true_shape / (true_shape + true_mean)))
    shape, mean = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (true_shape, true_mean))
    lost = torch.as_tensor(y)
    loss = (law * negative_binomial_loss(lost, shape.expand_as(lost), mean.expand_as(lost))).sum()
    assert [float(g) for g in torch.autograd.grad(loss, (shape, mean))] == pytest.approx([0.0, 0.0], abs=1e-8)


@pytest.mark.parametrize("lost", [0.0, 3.0])
@pytest.mark.parametrize("mean", [1e-8, 1.0, 1e5])
def test_losses_have_finite_gradients(lost, mean):
    rate, shape = (torch.tensor([v], requires_grad=True) for v in (mean, 0.1))
    y = torch.tensor([lost])
    (bregman_loss(rate, y) + negative_binomial_loss(y, shape, rate)).sum().backward()
    assert bool(rate.grad.isfinite().all() & shape.grad.isfinite().all())


@pytest.mark.parametrize(("n_obs", "share"), [(64, 0.0), (64, 0.25), (64, 0.5), (64, 1.0), (60, 0.5), (10, 0.2)])
def test_a_share_of_the_rows_is_empty_and_the_others_are_spread_evenly(n_obs, share, generator):
    sampler = TimeSampler(get_schedule("cosine"), share_empty=share, largest_p=0.9)
    p = sampler(n_obs, generator).p
    assert p.shape == (n_obs, 1)
    assert int((p == 0).sum()) == round(share * n_obs)
    rest = p[p > 0].sort().values / 0.9
    middle = (torch.arange(len(rest)) + 0.5) / max(len(rest), 1)  # of each row's stratum
    assert bool(((rest - middle).abs() <= 0.5 / max(len(rest), 1) + 1e-6).all())


def test_rows_come_in_random_order(generator):
    p = TimeSampler(get_schedule("linear"), share_empty=0.0)(512, generator).p.squeeze(1)
    # law of Spearman's correlation with the row number: N(0, 1 / 511)
    assert abs(stats.spearmanr(np.arange(512), p.numpy()).statistic) < 4 / math.sqrt(511)


@pytest.mark.parametrize("spacing", ["p", "t"])
def test_noise_levels_stay_below_the_largest(spacing, generator):
    levels = TimeSampler(get_schedule("cosine"), spacing=spacing, largest_p=0.7)(2000, generator)
    assert 0.69 < float(levels.p.max()) <= 0.7 + 1e-6


@pytest.mark.parametrize("spacing", ["p", "t"])
@pytest.mark.parametrize("weight", ["elbo", "paper", "unit"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_average_loss_is_the_weighted_integral(name, weight, spacing, generator):
    # (1 / n) Σ weight f(p) → ∫ w(t) f(p(t)) dt; f vanishes at the ends, where the sampler cuts p at 1e-3 and largest_p
    schedule = get_schedule(name)
    sampler = TimeSampler(schedule, weight, spacing, share_empty=0.0, largest_p=1.0 - 1e-6)
    levels = sampler(20_000, generator)
    average = float((levels.weight * levels.p * (1.0 - levels.p)).mean())

    def integrand(t: float) -> float:
        value = schedule(torch.tensor(t, dtype=torch.float64))
        return float(get_weight(weight)(value) * value.p * (1.0 - value.p))

    expected, _ = integrate.quad(integrand, 0.0, 1.0)
    assert average == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("schedule", [*map(get_schedule, SCHEDULES), LogitLinearSchedule(2.0)])
def test_elbo_does_not_depend_on_the_schedule(schedule):
    # in p-spacing the weight is 1 / (1 − p) whatever the schedule: ∫ [λ − y log λ / (1 − p)] dp
    levels = TimeSampler(schedule)(256, torch.Generator().manual_seed(1))
    reference = TimeSampler(get_schedule("linear"))(256, torch.Generator().manual_seed(1))
    assert torch.equal(levels.p, reference.p)
    torch.testing.assert_close(levels.weight, reference.weight, rtol=1e-5, atol=0)
    torch.testing.assert_close(levels.weight, 1.0 / (1.0 - levels.p.clamp(min=1e-3)), rtol=1e-5, atol=0)


def elbo(intensity, x_0: int, name: str) -> float:
    """∫ w(t) E[Bregman divergence] dt by brute force: every x_t ≤ x_0, Gauss-Legendre nodes in t."""
    node, width = np.polynomial.legendre.leggauss(400)
    value = get_schedule(name)(torch.as_tensor((node + 1) / 2))
    p = value.p.numpy()[:, None]
    x_t = np.arange(x_0 + 1)
    lost = torch.as_tensor(1.0 * x_0 - x_t).expand(len(p), -1)
    rate = torch.as_tensor(intensity(x_t, p) * (1.0 - p))
    loss = bregman_loss(rate, lost) - torch.where(lost > 0, bregman_loss(lost, lost), 0.0)
    expected = (stats.binom.pmf(x_t, x_0, p) * loss.numpy()).sum(1)
    return float((width / 2 * get_weight("elbo")(value).numpy() * expected).sum())


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("prior", [[0.4, 0.1, 0.3, 0.05, 0.15], [0.05, 0.15, 0.5, 0.1, 0.2]])
def test_elbo_of_the_exact_posterior_is_the_log_likelihood(prior, name, discrete_prior):
    # with the posterior mean of a prior, births are the exact reverse process, so the bound on −log prior(x_0) is tight
    truth = discrete_prior(prior)
    for x_0, probability in enumerate(prior):
        assert elbo(truth.intensity, x_0, name) == pytest.approx(-math.log(probability), abs=2e-4)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_elbo_of_anything_else_is_larger(factor, discrete_prior):
    prior = [0.4, 0.1, 0.3, 0.05, 0.15]
    truth = discrete_prior(prior)
    bound = sum(
        share * elbo(lambda x, p: factor * truth.intensity(x, p), x_0, "cosine") for x_0, share in enumerate(prior)
    )
    # the excess is exact: Σ ∫ E[λ] (f − 1 − log f) dp = E[x_0] (f − 1 − log f)
    excess = np.dot(prior, np.arange(5)) * (factor - 1.0 - math.log(factor))
    assert bound == pytest.approx(stats.entropy(prior) + excess, abs=2e-4)


def test_weights_may_be_functions():
    value = get_schedule("cosine")(torch.tensor([0.3]))
    assert get_weight(lambda v: 2.0 * v.p)(value) == 2.0 * value.p
    with pytest.raises(ValueError, match=r"'none'; choose one of \['elbo', 'paper', 'unit'\]"):
        get_weight("none")


def test_all_rows_or_none_may_be_empty(generator):
    for share, expected in ((1.0, 1.0), (0.0, 0.0)):
        levels = TimeSampler(get_schedule("cosine"), share_empty=share)(4096, generator)
        assert (levels.p == 0.0).float().mean() == pytest.approx(expected, abs=1e-3)
        assert levels.weight.isfinite().all()
    with pytest.raises(ValueError, match=r"share_empty is a share, in \[0, 1\]; got 1.5"):
        TimeSampler(get_schedule("cosine"), share_empty=1.5)


@pytest.mark.parametrize("shape", [0.1, 30.0, 8e3, 1e6])
@pytest.mark.parametrize("mean", [1e-4, 0.05, 2.0])
def test_negative_binomial_loss_of_no_count_in_single_precision(shape, mean):
    # r log((r + m) / r), which is m for a large shape, where 1 + m / r is 1 in float32
    loss = negative_binomial_loss(torch.zeros(1), torch.tensor([shape]), torch.tensor([mean]))
    assert float(loss) == pytest.approx(shape * math.log1p(mean / shape), rel=1e-6)
