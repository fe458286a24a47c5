import pytest
import torch
from scipy import stats

from countsdiff.core import Intensity, RepaintConfig, RowGenerator, SamplerConfig, get_schedule, repaint, sample
from countsdiff.core.sampler import largest_mean

N_DRAWS = 50_000


def rows(n_obs: int) -> RowGenerator:
    return RowGenerator(0, torch.arange(n_obs))


def test_windows_cover_the_path_and_none_begins_at_nothing():
    windows = list(RepaintConfig(n_resample=4, jump=3).windows(9))
    assert windows == [(0, 1, 1), (1, 4, 4), (4, 7, 4), (7, 9, 4)]
    assert list(RepaintConfig().windows(1)) == [(0, 1, 1)]


@pytest.mark.parametrize("settings", [{"n_resample": 0}, {"jump": 0}, {"n_resample": 2.5}])
def test_a_window_needs_a_step_and_a_walk(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is a whole number, at least 1; got"):
        RepaintConfig(**settings)


@pytest.mark.parametrize("attrition", [0.0, 0.5])
@pytest.mark.parametrize("settings", [RepaintConfig(1, 20), RepaintConfig(3, 2), RepaintConfig(5, 4)])
def test_independent_genes_keep_their_law(settings, attrition, make_context, gamma_poisson, assert_law):
    # known genes say nothing about another one, so its law is NegBin(r, μ) however often windows are walked
    truth = gamma_poisson(shape=[2.0, 0.4], mean=[3.0, 1.0])
    known = torch.tensor([[True, False]]).expand(N_DRAWS, 2)
    context = make_context(N_DRAWS, 2, counts=torch.full((N_DRAWS, 2), 5.0) * known, known=known)
    drawn = repaint(truth, context, rows(N_DRAWS), SamplerConfig(8, attrition=attrition), settings)
    assert not drawn[:, 0].any()
    assert_law(drawn[:, 1], truth.law(1))


def test_the_denoiser_sees_the_known_counts_thinned_along_one_path(make_context, assert_law):
    n_obs, seen = 20_000, []
    known = torch.tensor([[True, False, False]]).expand(n_obs, 3)
    noised = torch.tensor([[False, True, False]]).expand(n_obs, 3)
    context = make_context(n_obs, 3, counts=7.0 * known, known=known, noised=noised)

    def denoiser(x, p, asked):
        assert not asked.known.any()
        assert not asked.counts.any()
        assert torch.equal(asked.noised, known | noised)
        seen.append((float(p[0, 0]), x[:, 0]))
        return Intensity(torch.ones_like(x), torch.ones_like(x))

    drawn = repaint(denoiser, context, rows(n_obs), SamplerConfig(6), RepaintConfig(2, 3))
    assert not drawn[:, [0, 2]].any()
    at = {}
    for p, x in seen:
        if p > 0:
            assert_law(x, stats.binom(7, p))
        assert torch.equal(at.setdefault(p, x), x)  # walking a window again brings the same molecules back
    path = [at[p] for p in sorted(at)]
    assert all(bool((later >= earlier).all()) for earlier, later in zip(path[:-1], path[1:], strict=True))


class CopiedGene:
    """Two genes that are always equal, Poisson(μ): unconditionally, x_t of either tells of both."""

    def __init__(self, mean: float):
        self.support = torch.arange(0.0, 60.0)
        self.log_prior = torch.distributions.Poisson(mean).log_prob(self.support)

    def __call__(self, x, p, context):
        q = p[0, 0].clamp(1e-6, 1 - 1e-6)
        n, a = self.support, x.unsqueeze(2)
        log_binomial = torch.lgamma(n + 1) - torch.lgamma((n - a).clamp(min=0) + 1) + (n - a) * torch.log1p(-q)
        likelihood = torch.where(n >= a, log_binomial, -torch.inf).sum(1) + self.log_prior
        posterior = torch.softmax(likelihood, dim=1)
        mean = (posterior * n).sum(1, keepdim=True)
        return Intensity((mean - x).clamp(min=0) / (1.0 - p))


def test_resampling_harmonises(make_context):
    # the more often windows are walked, the better the copy is; conditional sampling would have it exact
    n_obs = 4_000
    counts = torch.poisson(torch.full((n_obs, 1), 6.0), generator=torch.Generator().manual_seed(1)).expand(-1, 2)
    known = torch.tensor([[True, False]]).expand(n_obs, 2)
    context = make_context(n_obs, 2, counts=counts * known, known=known)

    def error(n_resample: int) -> float:
        drawn = repaint(CopiedGene(6.0), context, rows(n_obs), SamplerConfig(20), RepaintConfig(n_resample, 5))
        return float((drawn[:, 1] - counts[:, 1]).square().mean())

    once, often = error(1), error(10)
    assert often < 0.8 * once
    assert once < 6.0  # better than an independent draw, whose error would be 12


def test_a_network_that_believes_its_own_draws_does_not_run_away(make_context):
    seen = []

    def credulous(x, p, asked):
        seen.append(x)
        return Intensity(1.0 + 30.0 * x, torch.ones_like(x))

    drawn = repaint(credulous, make_context(200, 3), rows(200), SamplerConfig(20), RepaintConfig(2, 3))
    bound = largest_mean(Intensity(torch.ones(1), torch.ones(1)))
    law = stats.nbinom(1.0, 1.0 / (1.0 + float(bound)))
    assert drawn.max() < law.isf(1e-9)
    assert max(x.max() for x in seen) > 1.0


def test_there_may_be_fewer_steps_than_asked_for(make_context, gamma_poisson):
    few = SamplerConfig(1_500, "t", schedule=get_schedule("blackout"))
    assert len(few.survival_grid()) < 1_501
    truth = gamma_poisson(shape=[2.0], mean=[3.0])
    assert repaint(truth, make_context(4, 1), rows(4), few, RepaintConfig(1, 500)).isfinite().all()


def test_with_nothing_known_it_is_sampling(make_context, gamma_poisson):
    truth = gamma_poisson(shape=[2.0, 0.4], mean=[3.0, 1.0])
    context = make_context(500, 2)
    config = SamplerConfig(1)
    drawn = repaint(truth, context, rows(500), config, RepaintConfig(1))
    assert torch.equal(drawn, sample(truth, context, rows(500), config))
