"""Calibration of paths: the sum of intensities is held steady."""

import pytest
import torch

from countsdiff.core import Denoiser, Intensity, RowGenerator
from countsdiff.core.calibration import N_DRIFT
from countsdiff.core.fits import fit_drift

N_OBS, N_STEPS = 20_000, 10


def rows(seed: int = 0) -> RowGenerator:
    return RowGenerator(seed, torch.arange(N_OBS))


def test_an_exact_denoiser_does_not_drift(make_context, gamma_poisson):
    # the posterior mean is a martingale: E λ(x_p, p) = λ(0, 0) for every p
    truth = gamma_poisson(shape=[2.0, 0.4], mean=[3.0, 1.0])
    factors = fit_drift(truth, [make_context(N_OBS, 2)], [rows()], N_STEPS)
    assert factors[0] == 1.0
    # λ has a standard deviation below 4 per cell
    assert factors == pytest.approx([1.0] * N_STEPS, abs=4.5 * 4.0 / 4.0 / N_OBS**0.5)


def test_the_luck_of_few_paths_is_no_drift(make_context, gamma_poisson):
    # one entry in a hundred has hundreds of counts, or none: sums of intensities differ between paths, as births do
    mean = torch.tensor([1.0] * 99 + [100.0])
    truth = gamma_poisson(shape=[1.0] * 99 + [0.05], mean=mean.tolist())
    for seed in range(5):
        path = RowGenerator(seed, torch.arange(10))
        assert fit_drift(truth, [make_context(10, 100)], [path], N_STEPS) == pytest.approx([1.0] * N_STEPS, abs=1e-5)


def test_finds_the_drift_that_was_there(make_context, gamma_poisson):
    truth = gamma_poisson(shape=[2.0, 0.4], mean=[3.0, 1.0])

    def drifting(x_t, p, context):
        intensity = truth(x_t, p, context)
        return Intensity((1.0 + 0.3 * p) * intensity.mean, intensity.shape)

    contexts, generators = [make_context(N_OBS, 2)] * 2, [rows(0), rows(1)]
    factors = fit_drift(drifting, contexts, generators, N_STEPS)
    expected = [1.0 / (1.0 + 0.3 * step / N_STEPS) for step in range(N_STEPS)]
    assert factors == pytest.approx(expected, abs=0.03)


def test_nothing_to_draw_needs_no_correction(make_context, gamma_poisson):
    known = torch.ones(50, 2, dtype=torch.bool)
    truth = gamma_poisson(shape=[2.0, 0.4], mean=[3.0, 1.0])
    context = make_context(50, 2, known=known)
    assert fit_drift(truth, [context], [RowGenerator(0, torch.arange(50))], N_STEPS) == [1.0] * N_STEPS


def test_the_denoiser_interpolates_its_factors(make_context):
    class Nothing(torch.nn.Module):
        def forward(self, evidence):
            return torch.zeros_like(evidence.log_ratio), torch.zeros_like(evidence.log_ratio)

    denoiser = Denoiser(Nothing(), torch.full((2,), 3.0), torch.ones(2), head="rate")
    context, x = make_context(4, 2), torch.zeros(4, 2)
    p = torch.tensor([[0.0], [0.05], [0.9], [1.0]])
    plain = denoiser(x, p, context).mean
    denoiser.calibration.drift[:-1] = 1.0 - torch.arange(N_DRIFT) / N_DRIFT
    expected = torch.tensor([[1.0], [0.95], [0.1], [1.0]])
    torch.testing.assert_close(denoiser(x, p, context).mean, expected * plain)
