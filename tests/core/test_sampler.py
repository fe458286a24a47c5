import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from countsdiff.core import (
    CustomSchedule,
    Intensity,
    LogitLinearSchedule,
    RowGenerator,
    SamplerConfig,
    TimeSampler,
    get_schedule,
    sample,
)
from countsdiff.core.sampler import births, largest_mean

N_DRAWS = 100_000


def rows(n_obs: int, seed: int = 0) -> RowGenerator:
    return RowGenerator(seed, torch.arange(n_obs))


@pytest.mark.parametrize("n_steps", [1, 2, 7, 50])
@pytest.mark.parametrize("spacing", ["p", "t"])
@pytest.mark.parametrize("attrition", [0.0, 0.3, 1.0])
def test_an_oracle_that_knows_the_lost_counts_brings_them_back(n_steps, spacing, attrition, make_context):
    x_0 = torch.poisson(torch.full((50, 6), 4.0), generator=torch.Generator().manual_seed(0))

    def oracle(x_t, p, context):
        return Intensity((x_0 - x_t) / (1.0 - p))

    config = SamplerConfig(n_steps, spacing, attrition)
    assert torch.equal(sample(oracle, make_context(50, 6), rows(50), config), x_0)


@pytest.mark.parametrize(
    "config",
    [
        SamplerConfig(1),
        SamplerConfig(5),
        SamplerConfig(20),
        SamplerConfig(5, "t"),
        SamplerConfig(5, attrition=0.5),
        SamplerConfig(5, attrition=1.0),
        SamplerConfig(5, "t", attrition=0.5, schedule=get_schedule("logit_linear")),
    ],
    ids=lambda c: f"{c.n_steps}-{c.spacing}-{c.attrition}",
)
def test_gamma_poisson_marginals_are_exact_for_any_path(config, make_context, gamma_poisson, assert_law):
    # law: NegBin(r, μ) per gene, whatever the number of steps and the attrition
    truth = gamma_poisson(shape=[2.0, 0.4], mean=[3.0, 1.0])
    drawn = sample(truth, make_context(N_DRAWS, 2), rows(N_DRAWS), config)
    for var in range(2):
        assert_law(drawn[:, var], truth.law(var))
    # law of the correlation of independent genes: N(0, 1 / n)
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 4.5 / N_DRAWS**0.5


def test_gamma_poisson_is_exact_on_the_way(make_context, gamma_poisson, assert_law):
    # law at survival probability p: NegBin(r, p μ)
    truth = gamma_poisson(shape=[2.0], mean=[3.0])
    states = []
    sample(truth, make_context(N_DRAWS, 1), rows(N_DRAWS), SamplerConfig(4, attrition=0.7), states.append)
    for state in states:
        assert_law(state.x, gamma_poisson(shape=[2.0], mean=[3.0 * state.p]).law(0))


def test_a_mean_alone_gives_the_law_as_the_steps_shrink(make_context, discrete_prior):
    # the posterior mean of a two-humped prior: one step rounds the mean, many steps are the exact birth process
    prior = [0.4, 0.1, 0.0, 0.3, 0.2]
    n_obs = 20_000

    def distance(n_steps: int) -> float:
        drawn = sample(discrete_prior(prior), make_context(n_obs, 1), rows(n_obs), SamplerConfig(n_steps))
        shares = np.bincount(drawn.long().flatten().numpy(), minlength=5) / n_obs
        return np.abs(shares[:5] - prior).sum() / 2 + shares[5:].sum() / 2

    # law of the distance between a sample of this size and its own law: about sqrt(5 / 20,000) / 2 = 0.008
    one, few, many = distance(1), distance(4), distance(64)
    assert one > 0.3
    assert few < one / 2
    assert many < 0.02


def test_a_mean_alone_is_rounded_without_bias(make_context):
    mean = torch.tensor([0.2, 1.0, 7.9])
    drawn = sample(
        lambda x_t, p, context: Intensity(mean.expand_as(x_t)),
        make_context(N_DRAWS, 3),
        rows(N_DRAWS),
        SamplerConfig(1),
    )
    assert bool(((drawn == mean.floor()) | (drawn == mean.ceil())).all())
    # law of an average: standard deviation below 0.5 / sqrt(n) = 0.0016
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.007)


@pytest.mark.parametrize("with_shape", [False, True])
def test_births_have_the_mean_of_their_exposure(with_shape):
    # law: E = λ Δp, with a variance below 2.5
    mean = torch.full((N_DRAWS, 1), 2.5)
    intensity = Intensity(mean, torch.full_like(mean, 3.0) if with_shape else None)
    born = births(intensity, 0.2, 0.3, torch.ones_like(mean, dtype=torch.bool), rows(N_DRAWS))
    assert float(born.mean()) == pytest.approx(0.75, abs=4.5 * (2.5 / N_DRAWS) ** 0.5)


@pytest.mark.parametrize("attrition", [0.0, 0.5])
@pytest.mark.parametrize("with_shape", [False, True])
def test_only_noised_entries_are_drawn(attrition, with_shape, make_context, gamma_poisson):
    truth = gamma_poisson(shape=[2.0] * 3, mean=[30.0] * 3)
    known = torch.tensor([[True, False, False]]).expand(200, 3)
    noised = torch.tensor([[False, True, False]]).expand(200, 3)
    context = make_context(200, 3, counts=torch.full((200, 3), 4.0) * known, known=known, noised=noised)

    def denoiser(x_t, p, context):
        intensity = truth(x_t, p, context)
        return intensity if with_shape else Intensity(intensity.mean)

    drawn = sample(denoiser, context, rows(200), SamplerConfig(5, attrition=attrition))
    assert not drawn[:, [0, 2]].any()
    # the law of the middle gene has mean 30
    assert float(drawn[:, 1].mean()) > 20.0


@pytest.mark.parametrize("chosen", [[3], [0, 4, 9], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
@pytest.mark.parametrize("attrition", [0.0, 0.4])
def test_a_row_does_not_depend_on_its_batch(chosen, attrition, make_context, gamma_poisson):
    truth = gamma_poisson(shape=[2.0, 0.4, 1.0], mean=[3.0, 1.0, 60.0])
    keys = torch.arange(100, 110)
    config = SamplerConfig(6, attrition=attrition)
    whole = sample(truth, make_context(10, 3), RowGenerator(0, keys), config)
    part = sample(truth, make_context(len(chosen), 3), RowGenerator(0, keys[chosen]), config)
    assert torch.equal(part, whole[chosen])


@pytest.mark.parametrize("attrition", [0.0, 0.5])
def test_callback_sees_every_step(attrition, make_context, gamma_poisson):
    truth = gamma_poisson(shape=[2.0], mean=[8.0])
    config, seen_p, states = SamplerConfig(7, attrition=attrition), [], []

    def denoiser(x_t, p, context):
        seen_p.append(float(p[0, 0]))
        return truth(x_t, p, context)

    drawn = sample(denoiser, make_context(300, 1), rows(300), config, states.append)
    grid = config.survival_grid()
    assert [state.step for state in states] == list(range(7))
    assert [state.p for state in states] == grid[1:]
    assert seen_p == pytest.approx(grid[:-1])
    assert torch.equal(states[-1].x, drawn)
    deaths = sum(int((later.x < earlier.x).sum()) for earlier, later in itertools.pairwise(states))
    assert (deaths > 0) == (attrition > 0)


def test_sampling_keeps_no_graph(make_context):
    weight = torch.tensor(2.0, requires_grad=True)
    drawn = sample(lambda x_t, p, context: Intensity(weight + x_t), make_context(3, 2), rows(3), SamplerConfig(2))
    assert not drawn.requires_grad


@pytest.mark.parametrize("name", ["cosine", "linear", "logit_linear"])
@pytest.mark.parametrize("n_steps", [1, 3, 20])
def test_survival_grid(name, n_steps):
    schedule, even = get_schedule(name), torch.linspace(0.0, 1.0, n_steps + 1, dtype=torch.float64)
    by_p = SamplerConfig(n_steps, "p", schedule=schedule).survival_grid()
    by_t = SamplerConfig(n_steps, "t", schedule=schedule).survival_grid()
    assert by_p == pytest.approx(even.tolist())
    assert by_t == pytest.approx(schedule(1.0 - even).p.tolist())
    assert by_p[0] == by_t[0] == 0.0
    assert by_p[-1] == by_t[-1] == 1.0


def test_equal_steps_in_p_need_no_schedule_that_reaches_them():
    # sigmoid(±L) of a short horizon ends at 0.13 and 0.87
    config = SamplerConfig(20, "p", schedule=LogitLinearSchedule(2.0))
    assert np.diff(config.survival_grid()) == pytest.approx(np.full(20, 0.05))


@pytest.mark.parametrize("attrition", [-0.1, 1.1, float("nan")])
def test_attrition_is_a_share(attrition):
    with pytest.raises(ValueError, match="Attrition"):
        SamplerConfig(attrition=attrition)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_steps": 0}, "n_steps=0"),
        ({"n_steps": 20.0}, "n_steps is a whole number; got 20.0"),
        ({"spacing": "x"}, "spacing 'x'"),
    ],
)
def test_impossible_paths_are_errors(config, message):
    with pytest.raises(ValueError, match=message):
        SamplerConfig(**config).survival_grid()


@pytest.mark.parametrize(("settings", "message"), [({"births": "x"}, "births 'x'"), ({"attrition_kind": 2}, "_kind 2")])
def test_unknown_rules_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplerConfig(**settings)


@pytest.mark.parametrize(
    ("p_t", "p_s", "limit"), [(0.0, 0.1, 1.0), (0.4, 0.5, 1.0), (0.8, 0.9, 0.125), (0.9, 1.0, 0.0)]
)
def test_attrition_is_rescaled_or_capped(p_t, p_s, limit):
    assert SamplerConfig(attrition=0.3).attrition_between(p_t, p_s) == pytest.approx(0.3 * limit)
    capped = SamplerConfig(attrition=0.3, attrition_kind="capped")
    assert capped.attrition_between(p_t, p_s) == pytest.approx(min(0.3, limit))
    assert SamplerConfig(attrition=1.0).attrition_between(p_t, p_s) == pytest.approx(limit)


@pytest.mark.parametrize("rule", ["stochastic", "round"])
@pytest.mark.parametrize("kind", ["rescaled", "capped"])
def test_the_oracle_needs_no_law(rule, kind, make_context):
    x_0 = torch.poisson(torch.full((50, 6), 4.0), generator=torch.Generator().manual_seed(0))
    config = SamplerConfig(9, attrition=0.4, attrition_kind=kind, births=rule)
    drawn = sample(
        lambda x, p, _: Intensity((x_0 - x) / (1.0 - p), torch.ones_like(x)), make_context(50, 6), rows(50), config
    )
    assert torch.equal(drawn, x_0)


def test_rounding_to_the_nearest_number_loses_rare_counts(make_context):
    # why CountsDiff rounds at random: 0.3 lost counts are none, at every step
    context, mean = make_context(N_DRAWS, 1), torch.full((N_DRAWS, 1), 0.3)
    for rule, expected in (("round", 0.0), ("stochastic", 0.3), ("poisson", 0.3)):
        drawn = sample(lambda x, p, _: Intensity(mean), context, rows(N_DRAWS), SamplerConfig(1, births=rule))
        # law of an average of counts with variance 0.3 at most
        assert float(drawn.mean()) == pytest.approx(expected, abs=4.5 * (0.3 / N_DRAWS) ** 0.5)


def test_poisson_births_of_a_constant_intensity_are_poisson(make_context, assert_law):
    mean = torch.full((N_DRAWS, 1), 2.7)
    config = SamplerConfig(7, "t", births="poisson")
    # λ does not depend on x_t, so Poisson births add up to Poisson(λ) exactly, whatever shape the head has
    drawn = sample(lambda x, p, _: Intensity(mean, mean), make_context(N_DRAWS, 1), rows(N_DRAWS), config)
    assert_law(drawn, stats.poisson(2.7))


@pytest.mark.parametrize("attrition", [0.0, 0.4])
def test_a_path_may_begin_anywhere(attrition, make_context, gamma_poisson, assert_law):
    # law: from a thinning of x_0 on, x_0 comes out with the law it had, NegBin(r, μ)
    truth = gamma_poisson(shape=[2.0], mean=[3.0])
    generator = torch.Generator().manual_seed(0)
    rate = torch.distributions.Gamma(2.0, 2.0 / 3.0).sample((N_DRAWS, 1))
    start = torch.poisson(0.35 * rate, generator=generator)
    states = []
    config = SamplerConfig(5, attrition=attrition)
    drawn = sample(truth, make_context(N_DRAWS, 1), rows(N_DRAWS), config, states.append, start=start, p=0.35)
    assert_law(drawn, truth.law(0))
    assert [state.p for state in states] == pytest.approx([0.4, 0.6, 0.8, 1.0])
    if attrition == 0.0:
        assert bool((drawn >= start).all())


def test_steps_of_no_length_are_not_taken():
    late = CustomSchedule(lambda t: 1.0 - t**6)  # p rounds to 1 long before t = 0
    grid = SamplerConfig(1000, "t", schedule=late).survival_grid()
    assert len(grid) < 1001
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    assert all(a < b for a, b in itertools.pairwise(grid))


@pytest.mark.parametrize("shape", [0.1, 1.0, 30.0])
def test_hardly_any_rate_exceeds_the_bound(shape):
    bound = largest_mean(Intensity(torch.tensor([[3.0]]), torch.tensor([[shape]])))
    beyond = stats.gamma(shape, scale=3.0 / shape).sf(float(bound))
    assert 1e-6 < beyond < 1e-4


def test_a_network_that_believes_its_own_draws_does_not_run_away(make_context):
    def credulous(x_t, p, context):
        return Intensity(2.0 + 8.0 * x_t, torch.full_like(x_t, 2.0) + x_t)

    seen = []
    context = make_context(2_000, 3)
    sample(credulous, context, rows(2_000), SamplerConfig(30), lambda state: seen.append(state.intensity.mean))
    bound = largest_mean(credulous(torch.zeros(2_000, 3), None, context))
    assert torch.equal(seen[0], torch.full((2_000, 3), 2.0))
    assert all(bool((mean <= bound).all()) for mean in seen)
    assert bool((seen[-1] == bound).any())


def test_stochastic_rounding_leaves_whole_numbers_alone(make_context):
    # of 255 and a uniform number next to 1, float32 makes 256: once in 140,000 draws
    n_obs = 4_000_000
    given = make_context(n_obs, 1)

    def certain(x_t, p, context):
        return Intensity(torch.full_like(x_t, 255.0))

    assert bool((sample(certain, given, rows(n_obs), SamplerConfig(1, births="stochastic")) == 255.0).all())


def test_what_is_no_source_of_randomness_is_said(make_context):
    def ones(x_t, p, context):
        return Intensity(torch.ones_like(x_t))

    with pytest.raises(TypeError, match="RowGenerator"):
        sample(ones, make_context(3, 2), torch.Generator())
    with pytest.raises(ValueError, match="2 rows, and there are 3 observations"):
        sample(ones, make_context(3, 2), rows(2))


@pytest.mark.parametrize("shape", [(3, 1), (1, 2), ()])
def test_an_intensity_has_a_number_for_every_entry(shape, make_context):
    def mean(x_t, p, context):
        return Intensity(torch.ones(shape))

    def law(x_t, p, context):
        return Intensity(torch.ones_like(x_t), torch.ones(shape))

    for denoiser, name in ((mean, "mean"), (law, "shape")):
        with pytest.raises(ValueError, match=f"Intensity.{name} has shape"):
            sample(denoiser, make_context(3, 2), rows(3))


def test_a_denoiser_answers_with_an_intensity(make_context):
    with pytest.raises(TypeError, match="answers with an Intensity; got Tensor"):
        sample(lambda x_t, p, context: torch.ones_like(x_t), make_context(3, 2), rows(3))


def test_a_context_holds_float32(make_context):
    with pytest.raises(TypeError, match=r"float64: take counts\.float"):
        make_context(3, 2, counts=torch.zeros(3, 2, dtype=torch.float64))


def test_a_schedule_is_no_name():
    with pytest.raises(TypeError, match="get_schedule"):
        SamplerConfig(schedule="cosine")
    with pytest.raises(TypeError, match="get_schedule"):
        TimeSampler("cosine")
