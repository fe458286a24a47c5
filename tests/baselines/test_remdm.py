import numpy as np
import pytest
import torch

from countsdiff.baselines import ReMDM
from countsdiff.baselines._remdm import Vocabulary


@pytest.fixture(scope="module")
def law():
    """Two genes that depend on each other, and 4,000 draws of them."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(2.0, 2.0, 4000)
    return np.stack([rng.poisson(rate), rng.poisson(3 * rate + 1)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(law):
    return ReMDM(n_steps=1000, width=64).fit(law, None)


def test_generated_cells_have_the_law_of_the_data(fitted, law):
    draws = fitted.sample(law, np.ones(law.shape, dtype=bool), 1, seed=1)[0]
    np.testing.assert_allclose(draws.mean(0), law.mean(0), rtol=0.05)
    np.testing.assert_allclose(draws.var(0), law.var(0), rtol=0.12)
    np.testing.assert_allclose((draws == 0).mean(0), (law == 0).mean(0), atol=0.02)
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(np.corrcoef(law.T)[0, 1], abs=0.08)


def test_the_mean_of_one_pass_is_that_of_the_samples(fitted, law):
    hidden = np.zeros(law.shape, dtype=bool)
    hidden[:, 1] = True
    mean = fitted.impute(law, hidden)[:, 1]
    residual = np.mean((law[:, 1] - mean) ** 2)
    assert residual < 1.1 * (1 - np.corrcoef(law.T)[0, 1] ** 2) * law[:, 1].var()  # that of the best line
    some = law[:500]
    draws = fitted.sample(some, hidden[:500], 10)[:, :, 1]
    assert draws.mean() == pytest.approx(mean[:500].mean(), rel=0.03)
    assert np.corrcoef(draws.mean(0), mean[:500])[0, 1] > 0.9


def test_counts_beyond_the_tokens_come_from_their_bin():
    counts = np.array([0.0] * 5000 + [1.0] * 4000 + [2.0] * 995 + [300.0, 310.0, 320.0, 5000.0, 5000.0])
    vocabulary = Vocabulary(counts.astype(np.float32))
    tokens = vocabulary.encode(torch.tensor([0.0, 1.0, 2.0, 300.0, 320.0, 5000.0, 9999.0]))
    assert tokens[:3].tolist() == [0, 1, 2]
    assert tokens[-1] == tokens[-2] == len(vocabulary.means) - 1
    assert vocabulary.means[-1] == 5000
    certain = torch.eye(len(vocabulary.means))[tokens[3]].expand(500, -1)
    drawn = vocabulary.draw(certain, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) <= {300.0, 310.0, 320.0}
    assert float(drawn.mean()) == pytest.approx(float(vocabulary.means[tokens[3]]), rel=0.01)


def test_tokens_up_to_the_cap_are_counts():
    counts = np.arange(0, 60, dtype=np.float32).repeat(10)
    vocabulary = Vocabulary(counts)
    everything = torch.arange(60.0)
    torch.testing.assert_close(vocabulary.encode(everything), torch.arange(60))
    torch.testing.assert_close(vocabulary.means, everything)


def test_large_counts_can_be_drawn():
    """A law with a heavy tail keeps its mean, in spite of a vocabulary far smaller than its largest count."""
    rng = np.random.default_rng(0)
    counts = np.floor(rng.lognormal(3.0, 1.4, (3000, 2))).astype(np.float32)
    fitted = ReMDM(n_steps=300, width=32).fit(counts, None)
    assert len(fitted.vocabulary.means) < 100 < counts.max() / 10
    draws = fitted.sample(counts, np.ones(counts.shape, dtype=bool), 1)[0]
    np.testing.assert_allclose(draws.mean(0), counts.mean(0), rtol=0.1)
    assert draws.max() > 300


def test_medians_over_tokens():
    vocabulary = Vocabulary(np.array([0, 0, 1, 2, 2, 3], dtype=np.float32))
    law = torch.tensor([[0.6, 0.2, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0]])
    assert vocabulary.median(law).tolist() == [0.0, 2.0, 3.0]
