"""Linear estimates are conditional expectations of Gaussian laws, whichever way they are worked out."""

import numpy as np
import pytest
import torch

from countsdiff.core import BoundedHead, Context, Denoiser, Intensity, X0Head
from countsdiff.nn import LinearEstimate

N_VARS = 6


@pytest.fixture
def counts():
    """Counts that hang together, 4,000 × 6."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(N_VARS, N_VARS))
    values = 120.0 + 20.0 * rng.normal(size=(4000, N_VARS)) @ mixing
    return torch.from_numpy(values.round().clip(0.0, 255.0)).float()


@pytest.fixture
def estimate(counts):
    return LinearEstimate.fit(counts.split(1000))


def covariance(estimate):
    return (estimate.vectors.double() * estimate.values) @ estimate.vectors.double().T


def conditional_mean(estimate, counts, exposure):
    """E[x | c / e] by the textbook, for Gaussian x and noise, row by row."""
    rows = []
    for c, e in zip(counts.double(), exposure.double(), strict=True):
        seen = e > 0
        noise = estimate.mean.double().mean() * (1 - e[seen]) / e[seen]
        cross, own = covariance(estimate)[:, seen], covariance(estimate)[seen][:, seen] + torch.diag(noise)
        deviation = c[seen] / e[seen] - estimate.mean.double()[seen]
        rows.append(estimate.mean.double() + cross @ torch.linalg.solve(own, deviation))
    return torch.stack(rows)


def test_moments_are_those_of_the_observations(counts, estimate):
    torch.testing.assert_close(estimate.mean, counts.mean(0))
    expected = np.cov(counts.numpy().T.astype(float), bias=True)
    nugget = 0.005 * np.trace(expected) / N_VARS
    np.testing.assert_allclose(covariance(estimate), expected + nugget * np.eye(N_VARS), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "exposure",
    [
        [0.3] * 6,  # all noised alike: a Wiener filter
        [1.0, 0.0, 1.0, 0.0, 0.0, 1.0],  # known and unknown: kriging
        [1.0, 0.3, 0.3, 1.0, 0.3, 0.3],  # known, and noised
        [1.0, 0.8, 0.8, 0.0, 0.0, 0.8],  # and absent
    ],
)
def test_it_is_the_conditional_expectation(counts, estimate, exposure):
    exposure = torch.tensor([exposure] * 5)
    seen = (counts[:5] * exposure).round()
    expected = conditional_mean(estimate, seen, exposure)
    rate = estimate(seen, exposure).double()
    to_go = 1.0 - exposure
    total = torch.where(to_go > 0, seen + to_go * rate, expected)  # of what is known nothing is to go
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-3)


def test_both_ways_agree(counts, estimate):
    # a row of one exposure, and the same but for the last bit, which is solved as a system of its own
    for p in (1e-4, 0.2, 0.7, 0.999):
        alike = torch.full((3, N_VARS), p)
        nearly = alike.clone()
        nearly[:, 0] = torch.nextafter(alike[:, 0], torch.ones(3))
        seen = (counts[:3] * p).round()
        torch.testing.assert_close(estimate(seen, alike), estimate(seen, nearly), rtol=1e-4, atol=1e-3)


def test_ends_of_time(counts, estimate):
    nothing = estimate(torch.zeros(2, N_VARS), torch.zeros(2, N_VARS))
    torch.testing.assert_close(nothing, estimate.mean.expand(2, -1))
    # no jump at p = 1, where intensities are a fresh replicate's
    end, close = (estimate(counts[:4], torch.full((4, N_VARS), p)) for p in (1.0, 1.0 - 1e-6))
    torch.testing.assert_close(end, close, rtol=1e-3, atol=1e-2)
    assert bool(end.isfinite().all())


def test_intensities_are_positive(estimate):
    low = estimate(torch.zeros(1, N_VARS), torch.full((1, N_VARS), 0.9))
    torch.testing.assert_close(low[0], torch.maximum(low[0], 0.01 * estimate.mean))
    assert bool((low > 0).all())


def test_a_row_does_not_depend_on_the_others(counts, estimate):
    exposure = torch.tensor([[0.3] * 6, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0.1] * 6])
    together = estimate(counts[:3], exposure)
    swapped = estimate(counts[:3].flip(0), exposure.flip(0)).flip(0)
    assert torch.equal(together, swapped)


def test_loaded_values_are_used(counts, estimate):
    exposure = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]])
    other = LinearEstimate.unfitted(N_VARS)
    before = other(counts[:1], exposure)
    other.load_state_dict(estimate.state_dict())
    torch.testing.assert_close(other(counts[:1], exposure), estimate(counts[:1], exposure))
    assert not torch.equal(other(counts[:1], exposure), before)


def test_fitted_values_lie_in_memory_as_loaded_ones_do(counts, estimate):
    loaded = LinearEstimate.unfitted(counts.shape[1])
    loaded.load_state_dict(estimate.state_dict())
    for name, value in estimate.named_buffers():  # or products round differently, on some machines
        assert value.stride() == loaded.get_buffer(name).stride(), name


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="no observations"):
        LinearEstimate.fit([])


class Nothing(torch.nn.Module):
    def forward(self, evidence):
        self.evidence = evidence
        return torch.zeros_like(evidence.base), torch.zeros_like(evidence.base)


@pytest.mark.parametrize("head", [BoundedHead(255.0), X0Head()])
def test_an_untrained_denoiser_answers_with_the_estimate(counts, estimate, head):
    denoiser = Denoiser(Nothing(), estimate.mean, torch.ones(N_VARS), head, size_factors=False, estimate=estimate)
    known = torch.tensor([[True, False, True, False, False, True]]).expand(2, -1)
    context = Context(counts[:2] * known, known, ~known, torch.empty(2, 0, dtype=torch.int64), torch.empty(2, 0))
    x_t = (0.3 * counts[:2] * ~known).round()
    answer = denoiser(x_t, torch.full((2, 1), 0.3), context)
    expected = estimate(counts[:2] * known + x_t, torch.where(known, 1.0, 0.3))
    assert isinstance(answer, Intensity)
    torch.testing.assert_close(answer.mean[~known], expected[~known])
    assert torch.equal(denoiser.backbone.evidence.estimate, expected)


@pytest.mark.parametrize("head", ["gamma", "rate"])
def test_heads_that_do_not_start_from_an_estimate(estimate, head):
    with pytest.raises(ValueError, match=f"'{head}' does not start from an estimate"):
        Denoiser(Nothing(), estimate.mean, torch.ones(N_VARS), head, estimate=estimate)
