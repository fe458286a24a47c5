import numpy as np
import pytest

from countsdiff.baselines import GaussianDiffusion


@pytest.fixture(scope="module")
def law():
    """Two genes that depend on each other, and 4,000 draws of them."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(2.0, 2.0, 4000)
    return np.stack([rng.poisson(rate), rng.poisson(3 * rate + 1)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(law):
    return GaussianDiffusion(n_steps=2000, width=64, n_draws=10).fit(law, None)


def test_generated_cells_have_about_the_law_of_the_data(fitted, law):
    draws = fitted.sample(law, np.ones(law.shape, dtype=bool), 1, seed=1)[0]
    np.testing.assert_allclose(draws.mean(0), law.mean(0), rtol=0.06)
    np.testing.assert_allclose(draws.var(0), law.var(0), rtol=0.25)
    np.testing.assert_allclose((draws == 0).mean(0), (law == 0).mean(0), atol=0.04)
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(np.corrcoef(law.T)[0, 1], abs=0.1)


def test_conditions_count(fitted, law):
    hidden = np.zeros(law.shape, dtype=bool)
    hidden[:, 1] = True
    mean = fitted.impute(law, hidden)[:, 1]
    best = (1 - np.corrcoef(law.T)[0, 1] ** 2) * law[:, 1].var()  # residual variance of the best line
    assert np.mean((law[:, 1] - mean) ** 2) < 1.3 * best
    assert mean.mean() == pytest.approx(law[:, 1].mean(), rel=0.05)
