import numpy as np
import pytest
import torch
from scipy import stats

from countsdiff.core import RowGenerator


def test_first_numbers_are_those_of_splitmix64():
    # reference outputs of SplitMix64 from state 0; the top 23 bits are kept
    reference = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    expected = torch.tensor([[((bits >> 41) + 0.5) / 2**23 for bits in reference]])
    assert torch.equal(RowGenerator(0, torch.tensor([0])).uniform(3), expected)


@pytest.mark.parametrize(("n_obs", "n_vars"), [(100_000, 1), (1, 100_000), (400, 250)])
def test_numbers_are_uniform(n_obs, n_vars):
    # law: U(0, 1), along a row as well as across rows with consecutive keys
    u = RowGenerator(3, torch.arange(n_obs)).uniform(n_vars)
    assert stats.kstest(u.double().flatten().numpy(), "uniform").pvalue > 1e-4


def test_numbers_lie_strictly_inside_the_unit_interval():
    # odd multiples of 2^-24, all of which float32 holds: neither 0 nor 1 can come out
    multiples = RowGenerator(1, torch.arange(1000)).uniform(1000).double() * 2**24
    assert bool((multiples % 2 == 1).all())
    assert 1 <= float(multiples.min()) < float(multiples.max()) <= 2**24 - 1


@pytest.mark.parametrize("chosen", [[4], [0, 2, 5], [5, 3, 1, 0, 2, 4]])
def test_rows_do_not_depend_on_the_batch(chosen):
    keys = torch.tensor([11, -7, 2**62, 0, 5, 123_456_789])
    whole, part = RowGenerator(9, keys, stream=2), RowGenerator(9, keys[chosen], stream=2)
    for event_shape in ((3,), (2, 4), ()):
        assert torch.equal(part.uniform(*event_shape), whole.uniform(*event_shape)[chosen])


def test_equal_keys_draw_equal_numbers():
    u = RowGenerator(0, torch.tensor([8, 8, 9])).uniform(5)
    assert torch.equal(u[0], u[1])
    assert not torch.equal(u[0], u[2])


def test_consecutive_calls_continue_the_stream():
    keys = torch.arange(4)
    at_once, in_turn = RowGenerator(0, keys), RowGenerator(0, keys)
    parts = [in_turn.uniform(3), in_turn.uniform(2, 2).flatten(1), in_turn.uniform().unsqueeze(1)]
    assert torch.equal(torch.cat(parts, dim=1), at_once.uniform(8))


def test_some_numbers_are_those_of_all_and_the_others_count_as_drawn():
    keys, at = torch.arange(4), torch.tensor([0, 5, 6, 23])
    every, some = RowGenerator(0, keys), RowGenerator(0, keys)
    assert torch.equal(some.uniform(2, 3, at=at), every.uniform(2, 3).flatten()[at])
    assert torch.equal(some.uniform(3), every.uniform(3))


def test_seeds_streams_and_neighbouring_rows_are_uncorrelated():
    n_obs = 40_000
    keys = torch.arange(n_obs)
    base = RowGenerator(0, keys).uniform(2)
    columns = [base[:, 0], base[:, 1], base[:, 0].roll(1)]
    # seed + 1 must not be the same as stream + 1, nor as key + 1
    columns += [RowGenerator(seed, keys).uniform() for seed in (1, 2, -1)]
    columns += [RowGenerator(0, keys, stream=stream).uniform() for stream in (1, 2)]
    correlation = np.corrcoef(torch.stack(columns).numpy())
    off_diagonal = correlation[np.triu_indices(len(columns), k=1)]
    # law: N(0, 1 / n); 28 pairs at five standard deviations
    assert np.abs(off_diagonal).max() < 5.0 / np.sqrt(n_obs)


def test_keys_are_integers():
    with pytest.raises(TypeError, match="float32"):
        RowGenerator(0, torch.tensor([0.1, 0.2]))
