import math

import pytest
import torch

from countsdiff.core import CosineSchedule, CustomSchedule, LogitLinearSchedule, get_schedule

SCHEDULES = {
    "cosine": get_schedule("cosine"),
    "linear": get_schedule("linear"),
    "logit_linear": get_schedule("logit_linear"),
    "logit_linear_short": LogitLinearSchedule(horizon=8.0),
    "custom_power": CustomSchedule(lambda t: (1.0 - t) ** 3),
    "custom_cosine": CustomSchedule(lambda t: torch.cos(0.5 * math.pi * t).square()),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@every_schedule
def test_inverse_undoes_the_schedule(schedule):
    t = torch.linspace(0.0, 1.0, 1001, dtype=torch.float64)
    # logit_linear spans 1 − p = 3e-7 at its ends, where float64 keeps nine digits of t
    torch.testing.assert_close(schedule.inverse(schedule.survival(t)), t, rtol=0, atol=1e-8)


@every_schedule
def test_slope_is_the_derivative(schedule):
    t = torch.linspace(0.001, 0.999, 501, dtype=torch.float64)
    h = 1e-6
    difference = (schedule.survival(t + h) - schedule.survival(t - h)) / (2 * h)
    torch.testing.assert_close(schedule(t).dp, difference, rtol=1e-6, atol=1e-8)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact_and_survival_falls(schedule, dtype):
    value = schedule(torch.linspace(0.0, 1.0, 1001, dtype=dtype))
    assert value.p.dtype == value.dp.dtype == dtype
    assert value.p[0] == 1.0
    assert value.p[-1] == 0.0
    assert bool((value.p.diff() <= 0).all())
    assert bool((value.dp[1:-1] < 0).all())


@every_schedule
@pytest.mark.parametrize("n_steps", [1, 2, 7, 50])
def test_time_grid(schedule, n_steps):
    even = torch.linspace(0.0, 1.0, n_steps + 1, dtype=torch.float64)
    for spacing in ("p", "t"):
        grid = schedule.time_grid(n_steps, spacing)
        assert grid.shape == (n_steps + 1,)
        assert grid[0] == 1.0
        assert grid[-1] == 0.0
        assert bool((grid.diff() < 0).all())
        steps_evenly = schedule(grid).p if spacing == "p" else 1.0 - grid
        torch.testing.assert_close(steps_evenly, even, rtol=0, atol=1e-9)


def test_custom_schedule_equals_the_formula_it_was_given():
    custom, cosine = SCHEDULES["custom_cosine"], CosineSchedule()
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    with torch.no_grad():  # sampling runs without gradients; the slope needs them all the same
        torch.testing.assert_close(custom(t).dp, cosine(t).dp)
    torch.testing.assert_close(custom.inverse(t), cosine.inverse(t))
    with torch.inference_mode():  # as prediction runs
        times = t.clone()
        slope = custom(times).dp
    torch.testing.assert_close(slope, cosine(t).dp)


@pytest.mark.parametrize("horizon", [1.0, 5.0, 15.0])
def test_logit_linear_runs_between_blackouts_survival_probabilities(horizon):
    # the pure-death process survives until T with probability e^-T, and Blackout's grid is symmetric about 1/2
    schedule = LogitLinearSchedule(horizon)
    ends = schedule.survival(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    expected = torch.tensor([-math.expm1(-horizon), 0.5, math.exp(-horizon)], dtype=torch.float64)
    torch.testing.assert_close(ends, expected)


def test_get_schedule_takes_names_functions_and_schedules():
    cosine = CosineSchedule()
    assert get_schedule(cosine) is cosine
    assert isinstance(get_schedule("cosine"), CosineSchedule)
    assert isinstance(get_schedule(lambda t: 1.0 - t), CustomSchedule)


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match=r"'sine'; choose one of \['blackout', 'cosine', 'jump', 'linear',"):
        get_schedule("sine")
    with pytest.raises(ValueError, match="Unknown spacing 'log'"):
        CosineSchedule().time_grid(5, "log")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda t: 0.9 - 0.9 * t, r"p\(0\) = 0.9"),
        (lambda t: 1.0 - 0.5 * t, r"p\(1\) = 0.5"),
        (lambda t: t, r"p\(0\) = 0,"),
        (lambda t: t * torch.nan, r"p\(0\) = nan"),
        (lambda t: 1.0 - t + 0.2 * torch.sin(4 * math.pi * t), "must decrease"),
        (lambda t: (1.25 * (1.0 - t)).clamp(max=1.0), "must decrease"),
        (lambda t: torch.where((t > 0.4) & (t < 0.6), torch.nan, 1.0 - t), "must decrease"),
    ],
)
def test_functions_that_are_no_survival_schedules_are_errors(function, message):
    with pytest.raises(ValueError, match=message):
        CustomSchedule(function)


@pytest.mark.parametrize("n_steps", [0, -3])
def test_a_path_needs_a_step(n_steps):
    with pytest.raises(ValueError, match=f"n_steps={n_steps}"):
        CosineSchedule().time_grid(n_steps)


@pytest.mark.parametrize("horizon", [math.log(2.0), 0.1, -1.0, math.nan])
def test_a_horizon_too_short_to_decrease_is_an_error(horizon):
    with pytest.raises(ValueError, match="horizon"):
        LogitLinearSchedule(horizon)
