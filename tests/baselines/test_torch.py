"""The room the torch rivals share."""

import pytest
import torch

from countsdiff.baselines._torch import LogScale, ResidualMLP, known_depth, leave_known, train


def squared(network, rows, generator):
    """Error of a network that is to return the sum of its two inputs."""
    x = torch.randn(len(rows), 2, generator=generator)
    return (network(x)[:, 0] - x.sum(1)).square().mean()


def test_the_network_starts_at_zero():
    torch.testing.assert_close(ResidualMLP(3, 2, 8)(torch.randn(5, 3)), torch.zeros(5, 2))


def test_training_learns_and_its_seed_decides():
    seen = torch.ones(200, 3, dtype=torch.bool)

    def trained(seed):
        return train(lambda: ResidualMLP(2, 1, 32), squared, squared, seen, n_steps=300, seed=seed)

    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    one, same, other = trained(0), trained(0), trained(1)
    assert not one.training
    assert float((one(x)[:, 0] - x.sum(1)).square().mean()) < 0.1
    torch.testing.assert_close(one(x), same(x), rtol=0, atol=0)
    assert not torch.equal(one(x), other(x))


def test_the_best_weights_are_kept():
    scores = iter([3.0, 1.0, 2.0])
    seen_at = []

    def score(network, rows, generator):
        assert len(rows) == 2  # a tenth
        seen_at.append(network.decode.bias.clone())
        return torch.tensor(next(scores, 4.0))

    network = train(lambda: ResidualMLP(2, 1, 4), squared, score, torch.ones(20, 1, dtype=bool), n_steps=20, seed=0)
    torch.testing.assert_close(network.decode.bias, seen_at[1], rtol=0, atol=0)


def test_training_leaves_out_cells_of_which_nothing_is_observed():
    seen = torch.zeros(50, 2, dtype=torch.bool)
    seen[:30, 0] = True

    def loss(network, rows, generator):
        assert (rows < 30).all()
        return squared(network, rows, generator)

    train(lambda: ResidualMLP(2, 1, 4), loss, loss, seen, n_steps=3, seed=0)
    with pytest.raises(ValueError, match="no entry is observed"):
        train(lambda: ResidualMLP(2, 1, 4), loss, loss, seen[30:], n_steps=3, seed=0)


def test_hide():
    """Of every cell a uniform share is kept, so 0.45 on average, and nothing of a tenth."""
    observed = torch.ones(4000, 100, dtype=torch.bool)
    observed[:, 60:] = False
    known = leave_known(observed, torch.Generator().manual_seed(0))
    assert not (known & ~observed).any()
    share = known[:, :60].float().mean(1)
    assert float(share.mean()) == pytest.approx(0.45, abs=0.02)
    assert float((share == 0).float().mean()) == pytest.approx(0.1 + 0.9 / 61, abs=0.02)
    assert float((share > 0.9).float().mean()) == pytest.approx(0.09, abs=0.02)


def test_depth_is_that_of_the_known_entries():
    counts, means = torch.tensor([[4.0, 8.0, 5.0], [9.0, 9.0, 9.0], [0.0, 0.0, 0.0]]), torch.tensor([2.0, 4.0, 100.0])
    known = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    depth = known_depth(counts, known, means)
    torch.testing.assert_close(depth, torch.tensor([[13 / 7], [1.0], [1 / 107]]))
    scale = LogScale(means, torch.tensor(0.5), torch.tensor(2.0))
    torch.testing.assert_close(scale.to_counts(scale.to_values(counts, depth), depth), counts)
    assert float(scale.to_counts(torch.tensor(-9.0), torch.tensor(1.0))) == 0
