"""Blackout Diffusion and JUMP as special cases, against the formulas of their papers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from countsdiff.core import (
    BlackoutSchedule,
    Intensity,
    JumpSchedule,
    LogitLinearSchedule,
    PoissonRandomisation,
    RowGenerator,
    SamplerConfig,
    TimeSampler,
    bregman_loss,
    sample,
)
from countsdiff.core.counting import binomial_quantile

T, HORIZON = 1000, 15.0


def blackout_times() -> torch.Tensor:
    """t_1 … t_T of Blackout Diffusion: equally spaced in Logit(e^−t), from near 0 to the horizon."""
    first, last = (math.log(q / (1.0 - q)) for q in (1.0 - math.exp(-HORIZON), math.exp(-HORIZON)))
    k = torch.arange(1, T + 1, dtype=torch.float64)
    return -torch.log(torch.sigmoid(first + (k - 1) / (T - 1) * (last - first)))


def test_blackout_looks_at_its_own_times():
    t = torch.arange(1, T + 1, dtype=torch.float64) / T
    survival = torch.exp(-blackout_times())
    schedule = BlackoutSchedule()
    torch.testing.assert_close(schedule.survival(t), survival, rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.survival(t.float()).double(), survival, rtol=1e-5, atol=0)
    # times in between belong to the next observation
    torch.testing.assert_close(schedule.survival(t - 0.5 / T), survival, rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.inverse(survival), t, rtol=0, atol=1e-12)


def test_blackout_loss_is_the_paper_weight():
    # its loss at observation k: e^−t_k (t_k − t_{k−1}) [r − y log r], k drawn uniformly
    times = blackout_times()
    own = torch.exp(-times) * torch.diff(times, prepend=times.new_zeros(1))
    sampler = TimeSampler(BlackoutSchedule(), "paper", "t", share_empty=0.0, largest_p=1.0)
    levels = sampler(4 * T, torch.Generator().manual_seed(0))
    p = levels.p.squeeze(1).double()
    k = (torch.logit(p).unsqueeze(1) - torch.logit(torch.exp(-times))).abs().argmin(1)
    apart = (p > 1e-6) & (p < 0.999)  # float32 tells observations apart
    _, times_drawn = k[apart].unique(return_counts=True)
    assert bool(((times_drawn - 4).abs() <= 1).all())  # uniformly and stratified, up to rounding between strata
    lost, rate = torch.full((4 * T, 1), 3.0), torch.full((4 * T, 1), 2.5)
    ours = levels.weight * bregman_loss(rate, lost)
    theirs = own[k].float().unsqueeze(1) * (rate - lost * torch.log(rate))
    torch.testing.assert_close(ours[apart] / T, theirs[apart], rtol=1e-3, atol=0)


def test_blackout_samples_like_its_own_reverse_process(make_context):
    # x_{k−1} = x_k + Bin(round(r), (e^−t_{k−1} − e^−t_k) / (1 − e^−t_k)) from the empty state, number by number
    survival = [0.0, *torch.exp(-blackout_times()).flip(0)[1:].tolist(), 1.0]  # the end of time is empty, exactly
    context, n_obs = make_context(200, 3), 200

    def predicted(x, p):
        return (6.3 - 0.4 * x) * (1.0 - p)

    config = SamplerConfig(T, "t", births="round", schedule=BlackoutSchedule())
    ours = sample(lambda x, p, _: Intensity(predicted(x, p) / (1.0 - p)), context, rows(n_obs), config)
    generator, theirs = rows(n_obs), torch.zeros(n_obs, 3)
    for p_t, p_s in zip(survival[:-1], survival[1:], strict=True):
        p = torch.tensor(p_t)
        chance = torch.full_like(theirs, (p_s - p_t) / (1.0 - p_t))
        theirs = theirs + binomial_quantile(generator.uniform(3), torch.round(predicted(theirs, p)), chance)
    assert (ours != theirs).float().mean() < 0.02  # a prediction that rounding error moves across a half
    assert 2.0 < float(ours.mean()) < 8.0


def test_blackout_is_logit_linear_looked_at_a_thousand_times():
    t = torch.linspace(0.05, 0.95, 37, dtype=torch.float64)
    difference = BlackoutSchedule().survival(t) - LogitLinearSchedule().survival(t)
    # a time is moved by two observations at most, at a slope of 7.5
    assert float(difference.abs().max()) < 2 * 7.5 / T


def test_jump_solves_its_signal_to_noise_ratios():
    schedule = JumpSchedule()
    p = schedule.survival(torch.arange(0, T + 1, dtype=torch.float64) / T)
    alpha_bar = p.square()
    assert float(torch.logit(alpha_bar[1])) == pytest.approx(10.0)
    assert float(torch.logit(alpha_bar[-1])) == pytest.approx(-12.0)
    beta = 1.0 - alpha_bar[1:] / alpha_bar[:-1]
    torch.testing.assert_close(beta.diff(), torch.full((T - 1,), float(beta[-1] - beta[0]) / (T - 1)).double())


def test_jump_slope_and_inverse():
    t = (torch.arange(T, dtype=torch.float64) + 0.3) / T  # off the grid, where the slope jumps
    schedule, h = JumpSchedule(), 1e-7
    difference = (schedule.survival(t + h) - schedule.survival(t - h)) / (2 * h)
    torch.testing.assert_close(schedule(t).dp, difference, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(schedule.inverse(schedule.survival(t)), t, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n_steps", [1, 12])
def test_jump_brings_numbers_back_with_the_noise_of_its_scale(n_steps, make_context, assert_law):
    # births Poisson(ζ (p_s − p_t) x_0) add up to Poisson(ζ x_0): mean x_0 and variance x_0 / ζ after division
    jump, x_0, n_obs = PoissonRandomisation(40.0), 0.37, 50_000

    def oracle(z_t, p, context):
        return Intensity(torch.full_like(z_t, 40.0 * x_0))

    config = SamplerConfig(n_steps, "t", births="poisson", schedule=JumpSchedule())
    drawn = sample(oracle, make_context(n_obs, 1), rows(n_obs), config)
    assert_law(drawn, stats.poisson(40.0 * x_0))
    values = jump.values(drawn).double().numpy()
    assert values.mean() == pytest.approx(x_0, abs=4.5 * np.sqrt(x_0 / 40.0 / n_obs))


def test_poisson_randomisation_has_its_law(assert_law):
    jump = PoissonRandomisation(5.0)
    assert_law(jump.counts(torch.full((50_000,), 0.3), torch.Generator().manual_seed(0)), stats.poisson(1.5))


def test_impossible_settings_are_errors():
    with pytest.raises(ValueError, match="at least two observation times; got 1"):
        BlackoutSchedule(n_times=1)
    with pytest.raises(ValueError, match=r"horizon must exceed log 2.*got 0.5"):
        BlackoutSchedule(horizon=0.5)
    with pytest.raises(ValueError, match="No linear β leads from log-SNR 1 to 3"):
        JumpSchedule((1.0, 3.0))
    with pytest.raises(ValueError, match="must be positive; got 0"):
        PoissonRandomisation(0.0)


def rows(n_obs: int) -> RowGenerator:
    return RowGenerator(0, torch.arange(n_obs))
