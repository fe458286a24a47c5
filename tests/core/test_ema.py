import copy

import pytest
import torch
from torch import nn

from countsdiff.core import ExponentialMovingAverage

DECAY = 0.3  # reached after three updates: (1 + n) / (10 + n) = .1, .18, .25, .31 for n = 0, 1, 2, 3


def network(value: float) -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    return module


def follow(values: list[float], start: float = 5.0) -> ExponentialMovingAverage:
    average = ExponentialMovingAverage(network(start), DECAY)
    for value in values:
        average.update(network(value))
    return average


@pytest.mark.parametrize("n_updates", [1, 2, 3, 8])
def test_average_has_its_closed_form(n_updates):
    # a_n = Σ_k (1 − d_k) w_k Π_{j > k} d_j + a_0 Π_j d_j, with d_n = min(decay, (1 + n) / (10 + n))
    values = [1.0, -2.0, 4.0, 0.5, 3.0, -1.0, 7.0, 2.0][:n_updates]
    decay = torch.tensor([min(DECAY, (1 + n) / (10 + n)) for n in range(n_updates)])
    expected = 5.0 * decay.prod() + sum((1 - decay[k]) * values[k] * decay[k + 1 :].prod() for k in range(n_updates))
    average = follow(values)
    assert int(average.n_updates) == n_updates
    for parameter in average.module.parameters():
        torch.testing.assert_close(parameter, expected.expand_as(parameter))


def test_state_dict_carries_everything():
    average = follow([1.0, -2.0])
    restored = ExponentialMovingAverage(network(0.0), DECAY)
    restored.load_state_dict(copy.deepcopy(average.state_dict()))
    for each in (average, restored):
        each.update(network(3.0))
    assert int(restored.n_updates) == 3
    for mine, theirs in zip(restored.state_dict().values(), average.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_buffers_are_copied():
    module = network(1.0)
    module(torch.tensor([[1.0, 2.0], [5.0, -1.0]]))  # moves the running statistics
    average = follow([])
    average.update(module)
    for mine, theirs in zip(average.module.buffers(), module.buffers(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine is not theirs


def test_the_original_is_left_alone():
    module = network(1.0)
    average = ExponentialMovingAverage(module, DECAY)
    average.update(network(9.0))
    assert module.training
    assert all(p.requires_grad and bool((p == 1.0).all()) for p in module.parameters())
    assert not any(p.requires_grad for p in average.parameters())


def test_it_stays_in_evaluation_mode():
    outer = nn.ModuleList([follow([])]).train()
    assert not any(module.training for module in outer[0].modules())


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0, float("nan")])
def test_impossible_decay_is_an_error(decay):
    with pytest.raises(ValueError, match="decay"):
        ExponentialMovingAverage(network(0.0), decay)
