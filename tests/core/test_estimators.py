import numpy as np
import pytest
import torch
from scipy import optimize, special, stats

from countsdiff.core import CountLaw
from countsdiff.core.estimators import _rise, log_mean


def test_rise_is_minus_lamberts_w():
    b = np.concatenate([np.logspace(-8, -0.5, 200), [np.exp(-1) * (1 - 1e-4)]])
    ours = _rise(torch.tensor(np.log(b), dtype=torch.float32)).numpy()
    np.testing.assert_allclose(ours, -special.lambertw(-b).real, rtol=5e-3)


def test_rows_add_up_to_their_means_and_keep_their_order(generator):
    mean = torch.distributions.Gamma(0.3, 0.3).sample((50, 200))
    law = CountLaw(mean, torch.full_like(mean, 2.0))
    wanted = torch.rand(50, 200, generator=generator) < 0.7
    scale = 1e4 / mean.sum(1, keepdim=True)
    y = log_mean(law, scale, wanted)
    torch.testing.assert_close(y.sum(1), (mean * wanted).sum(1), rtol=1e-4, atol=0)
    assert not y[~wanted].any()
    for row, means, some in zip(y, mean, wanted, strict=True):
        assert bool((row[some][means[some].argsort()].diff() >= -1e-5 * row.max()).all())


def test_it_is_the_constrained_minimum():
    # four counts deep enough for every rise to stay below 1, against a general optimiser
    law = CountLaw(torch.tensor([[40.0, 9.0, 4.0, 15.0]]), torch.tensor([[8.0, 9.0, 9.0, 5.0]]))
    scale = torch.tensor([[2.0]])
    y = log_mean(law, scale, torch.ones(1, 4, dtype=torch.bool))
    m = law.mean_log1p(scale).double().numpy()[0]
    total = float(law.mean.sum() * 2.0)
    found = optimize.minimize(
        lambda u: ((u - m) ** 2).sum(),
        m + 0.05,
        constraints={"type": "eq", "fun": lambda u: (np.expm1(u).sum() - total) / total},
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(np.log1p(2.0 * y.double().numpy()[0]), found.x, atol=2e-3)


def test_certain_counts_are_returned():
    # a law of almost no spread: the logarithm of the mean is the mean of the logarithm
    mean = torch.tensor([[1e4, 2e4, 5e4]])
    y = log_mean(CountLaw(mean, torch.full_like(mean, 1e7)), torch.ones(1, 1), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(y, mean, rtol=1e-3, atol=0)


def test_what_is_known_stays_and_the_rest_is_expected_on_top():
    # three counts seen, Poisson births on top; E log1p(scale (seen + births)) by summing over the law
    seen, mean, scale = torch.tensor([[30.0, 4.0, 12.0]]), torch.tensor([[25.0, 9.0, 6.0]]), torch.tensor([[0.5]])
    y = log_mean(CountLaw(mean), scale, torch.ones(1, 3, dtype=torch.bool), seen)
    assert float(y.sum()) == pytest.approx(float((seen + mean).sum()), rel=1e-4)
    births = np.arange(200)[:, None]
    m = (stats.poisson(mean.numpy()).pmf(births) * np.log1p(0.5 * (seen.numpy() + births))).sum(0)
    rise = np.log1p(0.5 * y.double().numpy()[0]) - m  # w, with w e^−w = a e^m for one a
    assert (rise > 0).all()
    np.testing.assert_allclose(np.log(rise) - rise - m, (np.log(rise) - rise - m).mean(), atol=0.02)
    assert bool((log_mean(CountLaw(1e-6 * mean), scale, seen > 0.0, seen) >= seen).all())


def test_nothing_wanted_is_nothing():
    law = CountLaw(torch.ones(2, 3), torch.ones(2, 3))
    assert not log_mean(law, torch.ones(2, 1), torch.zeros(2, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize("depth", [0.1, 1.0, 10.0])
def test_it_is_better_than_scaling_everything(depth, generator):
    # the metric of Open Problems: normalise both to 10,000, log1p, mean squared error
    mean = depth * torch.distributions.Gamma(0.3, 0.3).sample((200, 300))
    shape = torch.full_like(mean, 1.5)
    x = torch.poisson(torch._standard_gamma(shape, generator=generator) / shape * mean, generator=generator)
    law, scale = CountLaw(mean, shape), 1e4 / mean.sum(1, keepdim=True)

    def error(y):
        logs = [torch.log1p(1e4 * v / v.sum(1, keepdim=True).clamp(min=1.0 * depth)) for v in (x, y)]
        return float((logs[0] - logs[1]).square().mean())

    ours = error(log_mean(law, scale, torch.ones_like(mean, dtype=torch.bool)))
    assert ours < error(torch.expm1(law.mean_log1p(scale)) / scale)
    assert ours < error(mean)


def test_shallow_cells_put_the_depth_where_it_costs_least(generator):
    # a few molecules over hundreds of genes: hardly any value may move, so the largest one holds the rest
    mean = 0.02 * torch.distributions.Gamma(1.0, 1.0).sample((20, 500))
    law, scale = CountLaw(mean, torch.full_like(mean, 2.0)), 1e4 / mean.sum(1, keepdim=True)
    y = log_mean(law, scale, torch.ones_like(mean, dtype=torch.bool))
    torch.testing.assert_close(y.sum(1), mean.sum(1), rtol=1e-4, atol=0)
    u, m = torch.log1p(scale * y), law.mean_log1p(scale)
    others = u.argsort(1)[:, :-1]
    assert bool(((u - m).gather(1, others).abs() < 0.05 * m.gather(1, others) + 0.01).all())
    assert bool((y.argmax(1) == mean.argmax(1)).all())
