import numpy as np
import pytest

from countsdiff.baselines import NBAutoencoder, SizeFactorMean
from countsdiff.metrics import poisson_loss
from countsdiff.pp import mcar


@pytest.fixture(scope="module")
def two_kinds():
    """Two kinds of cells, overdispersed: counts and what is hidden of them."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.7, 4.0, (2, 50))
    means = rng.gamma(5.0, 0.2, (500, 1)) * profiles[rng.integers(2, size=500)]
    counts = rng.poisson(rng.gamma(2.0, means / 2.0)).astype(np.float32)
    return counts, mcar(counts.shape, 0.3), means


def test_beats_the_size_factor_mean(two_kinds):
    counts, hidden, means = two_kinds
    loss = {
        type(imputer): poisson_loss(counts[hidden], imputer.impute(counts, hidden)[hidden])
        for imputer in (NBAutoencoder(), SizeFactorMean())
    }
    best = poisson_loss(counts[hidden], means[hidden])
    assert loss[NBAutoencoder] - best < 0.4 * (loss[SizeFactorMean] - best)


def test_means_are_at_own_depth_and_samples_are_overdispersed(two_kinds):
    counts, hidden, _ = two_kinds
    fitted = NBAutoencoder().fit(counts, hidden)
    mean = fitted.impute(counts, hidden)
    known = ~hidden
    np.testing.assert_allclose((mean * known).sum(1), (counts * known).sum(1), rtol=1e-3)
    draws = fitted.sample(counts, hidden, 20)
    np.testing.assert_allclose(draws.mean(0).sum(1), mean.sum(1), rtol=0.35)
    assert draws.mean() == pytest.approx(mean.mean(), rel=0.02)
    spread = ((draws[:, hidden] - mean[hidden]) ** 2).mean()
    assert 1.5 * mean[hidden].mean() < spread < 1.1 * ((counts - mean)[hidden] ** 2).mean()  # Poisson, and the truth


def test_the_number_of_steps_is_a_limit(two_kinds):
    counts, hidden, _ = two_kinds
    short, long = (NBAutoencoder(n_steps=n).impute(counts, hidden) for n in (1, 200))
    assert poisson_loss(counts[hidden], long[hidden]) < poisson_loss(counts[hidden], short[hidden])


def test_too_few_cells():
    with pytest.raises(ValueError, match="three cells to learn from; got 2"):
        NBAutoencoder().fit(np.ones((2, 5), dtype=np.float32), None)
