import pytest
import torch
from scipy import stats

from countsdiff.core import RowGenerator, bridge, noise, thin
from countsdiff.core.process import attrition_limit, birth_exposure, survivors

N_DRAWS = 100_000
STEPS = [(0.0, 0.3), (0.0, 1.0), (0.2, 0.5), (0.3, 0.7), (0.6, 0.9), (0.05, 0.06), (0.95, 0.99), (0.4, 1.0)]


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (6, 0.5), (6, 0.9), (40, 0.05), (300, 0.4), (20_000, 0.7)])
def test_thinning_is_binomial(n, p, generator, assert_law):
    # law: Bin(n, p); torch switches algorithms at n p = 10
    assert_law(thin(torch.full((N_DRAWS,), float(n)), p, generator), stats.binom(n, p))


def test_thinning_twice_is_thinning_by_the_product(generator, assert_law):
    # law: Bin(n, p q)
    x = torch.full((N_DRAWS,), 15.0)
    assert_law(thin(thin(x, 0.6, generator), 0.5, generator), stats.binom(15, 0.3))


def test_thinning_ends_and_bounds(generator):
    counts = torch.poisson(torch.full((50, 40), 2.0), generator=generator)
    assert torch.equal(thin(counts, 1.0, generator), counts)
    assert torch.equal(thin(counts, 0.0, generator), torch.zeros_like(counts))
    thinned = thin(counts, 0.5, generator)
    assert bool(((thinned >= 0) & (thinned <= counts)).all())


def test_thinning_takes_a_probability_per_row(generator):
    counts = torch.full((3, 1000), 10.0)
    thinned = thin(counts, torch.tensor([[0.0], [0.5], [1.0]]), generator)
    assert torch.equal(thinned[[0, 2]], torch.tensor([[0.0], [10.0]]).expand(2, 1000))
    # law of the mean: 5, standard deviation sqrt(2.5 / 1000) = 0.05
    assert float(thinned[1].mean()) == pytest.approx(5.0, abs=0.2)


def test_thinning_repeats_with_its_generator():
    counts = torch.full((100,), 20.0)
    first, second, other = (thin(counts, 0.5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_noise_splits_the_noised_counts_and_leaves_the_others_alone(generator):
    x_0 = torch.poisson(torch.full((200, 30), 3.0), generator=generator)
    noised = torch.rand(200, 30, generator=generator) < 0.5
    p = torch.rand(200, 1, generator=generator)
    result = noise(x_0, p, noised, generator)
    assert torch.equal((result.x_t + result.lost)[noised], x_0[noised])
    assert not result.x_t[~noised].any()
    assert not result.lost[~noised].any()
    assert bool((result.lost >= 0).all())


@pytest.mark.parametrize(("p_t", "p_s"), STEPS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_bridge_keeps_the_marginal_law(p_t, p_s, share, generator, assert_law):
    # law: x_s ~ Bin(x_0, p_s) whatever the attrition
    x_0 = torch.full((20_000, 1), 12.0)
    x_t = thin(x_0, p_t, generator)
    attrition = share * attrition_limit(p_t, p_s)
    rows = RowGenerator(5, torch.arange(len(x_0)))
    x_s = bridge(x_t, x_0 - x_t, p_t, p_s, attrition=attrition, generator=rows)
    assert_law(x_s, stats.binom(12, p_s))


def test_bridge_without_attrition_reverses_the_thinning(generator, assert_law):
    # law: x_t | x_s ~ Bin(x_s, p_t / p_s), as in the forward process, and molecules are only ever born
    x_0 = torch.full((N_DRAWS, 1), 10.0)
    x_t = thin(x_0, 0.3, generator)
    x_s = bridge(x_t, x_0 - x_t, 0.3, 0.7, generator=RowGenerator(0, torch.arange(N_DRAWS)))
    assert bool(((x_s >= x_t) & (x_s <= x_0)).all())
    assert_law(x_t[x_s == 8], stats.binom(8, 0.3 / 0.7))


@pytest.mark.parametrize("attrition", [0.2, 0.9])
def test_survivors_are_binomial(attrition, assert_law):
    # law: Bin(x_t, 1 − σ)
    rows = RowGenerator(0, torch.arange(N_DRAWS))
    assert_law(survivors(torch.full((N_DRAWS, 1), 9.0), attrition, rows), stats.binom(9, 1 - attrition))


def test_without_attrition_everything_survives():
    x_t = torch.arange(12.0).view(3, 4)
    assert torch.equal(survivors(x_t, 0.0, RowGenerator(0, torch.arange(3))), x_t)


@pytest.mark.parametrize(("p_t", "p_s"), STEPS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_births_make_up_for_deaths(p_t, p_s, share):
    attrition = share * attrition_limit(p_t, p_s)
    beta = birth_exposure(p_t, p_s, attrition) / (1.0 - p_t)
    assert -1e-12 <= beta <= 1.0 + 1e-12
    assert (1.0 - attrition) * p_t + beta * (1.0 - p_t) == pytest.approx(p_s, abs=1e-12)


@pytest.mark.parametrize(
    ("p_t", "p_s", "limit"), [(0.0, 0.4, 1.0), (0.0, 1.0, 1.0), (0.4, 0.5, 1.0), (0.5, 0.8, 0.4), (0.7, 1.0, 0.0)]
)
def test_attrition_limit(p_t, p_s, limit):
    assert attrition_limit(p_t, p_s) == pytest.approx(limit)


@pytest.mark.parametrize("attrition", [-0.01, 0.41, 1.0, float("nan")])
def test_impossible_attrition_is_an_error(attrition):
    with pytest.raises(ValueError, match=r"outside \[0, 0.4\]"):
        birth_exposure(0.5, 0.8, attrition)


@pytest.mark.parametrize("wrong", [float("nan"), -3.0])
def test_thinning_ends_where_counts_are_none(wrong):
    with pytest.raises(ValueError, match="negative, or NaN"):
        thin(torch.tensor([5.0, wrong]), 0.5)


def test_counts_of_a_whole_type_are_refused_not_thinned_to_nothing():
    # a probability of their type would be 0: no births, and no survivors
    five, streams = torch.tensor([[5]]), RowGenerator(0, torch.arange(1))
    with pytest.raises(TypeError, match=r"take counts\.float"):
        thin(five, 0.5)
    with pytest.raises(TypeError, match=r"take counts\.float"):
        bridge(five, torch.tensor([[50]]), 0.2, 0.6, generator=streams)


@pytest.mark.parametrize("p_s", [0.5, 0.2])
def test_a_reverse_step_goes_to_more_survivors(p_s):
    ones = torch.ones(1, 1)
    with pytest.raises(ValueError, match="larger survival probability"):
        bridge(ones, ones, 0.5, p_s, generator=RowGenerator(0, torch.arange(1)))
