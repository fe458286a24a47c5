"""Means by empirical Bayes: exact where the law is known, nearer to the truth than the counts' own, and no surprise."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from countsdiff.core.shrinkage import dispersion_index, posterior_means

N_VARS = 3_000


def variables(spread: float = 1.0, location: float = math.log(0.02), seed: int = 0):
    """True means by a log-normal law, exposures, and a generator."""
    rng = np.random.default_rng(seed)
    return rng.lognormal(location, spread, N_VARS), rng.uniform(200.0, 600.0, N_VARS), rng


@pytest.mark.parametrize("index", [1.0, 4.0])
def test_posterior_means_are_those_of_the_law(index):
    true, exposure, rng = variables()
    total = index * rng.poisson(true * exposure / index)
    means = posterior_means(torch.as_tensor(total), torch.as_tensor(exposure), index).numpy()
    law = stats.norm(math.log(0.02), 1.0)
    for i in range(40):
        counted, exposed = total[i] / index, exposure[i] / index

        def density(u, power, counted=counted, exposed=exposed):
            return math.exp(power * u + counted * u - exposed * math.exp(u)) * law.pdf(u)

        (above, _), (below, _) = (integrate.quad(density, -12.0, 2.0, (power,), limit=200) for power in (1, 0))
        assert means[i] == pytest.approx(above / below, rel=0.08)  # the law is fitted, not told


def test_what_was_seen_least_gains_most():
    true, exposure, rng = variables()
    total = rng.poisson(true * exposure)
    means = posterior_means(torch.as_tensor(total), torch.as_tensor(exposure)).numpy()
    new = rng.poisson(true * exposure)
    surprise = {name: float((exposure * m - new * np.log(m)).sum()) for name, m in (("truth", true), ("ours", means))}
    plain = np.maximum(total / exposure, 0.1 / exposure)
    surprise["plain"] = float((exposure * plain - new * np.log(plain)).sum())
    assert surprise["truth"] < surprise["ours"]
    assert surprise["ours"] - surprise["truth"] < 0.75 * (surprise["plain"] - surprise["truth"])
    # variables with few counts were unlucky, and those with many hardly move
    few, many = total <= 2, total >= 100
    assert new[few].sum() > 1.5 * total[few].sum()
    assert (means * exposure)[few].sum() == pytest.approx(new[few].sum(), rel=0.05)
    np.testing.assert_allclose(means[many], (total / exposure)[many], rtol=0.05)


def test_what_was_never_seen_or_never_observed():
    exposure = torch.tensor([100.0, 100.0, 0.0, 100.0])
    means = posterior_means(torch.tensor([50.0, 0.0, 0.0, 70.0]), exposure)
    assert 0.0 < float(means[1]) < 0.05
    assert math.isnan(float(means[2]))
    assert posterior_means(torch.zeros(3), torch.full((3,), 10.0)).tolist() == [0.0, 0.0, 0.0]
    assert dispersion_index(torch.zeros(2, 3), torch.ones(2, 3)) == 1.0
    assert dispersion_index(torch.ones(2, 1), torch.tensor([[1.0], [0.0]])) == 1.0


@pytest.mark.parametrize("index", [1.0, 8.0])
def test_one_half_tells_how_dispersed_the_other_is(index):
    true, exposure, rng = variables(location=math.log(0.1))
    totals = index * rng.poisson(np.stack([true * exposure / 2] * 2) / index)
    halves = torch.as_tensor(np.stack([exposure / 2] * 2))
    assert dispersion_index(torch.as_tensor(totals), halves) == index


def test_no_variable_decides_for_all_what_their_dispersion_is():
    # three observations, all in one half, have thousands of counts of some variables that hardly any other shows
    true, exposure, rng = variables()
    totals, exposures = rng.poisson(true * exposure, (2, N_VARS)), np.stack([exposure, exposure])
    totals[0, :10] = 3_000
    assert dispersion_index(torch.as_tensor(totals), torch.as_tensor(exposures)) == 1.0
    totals = 4 * rng.poisson(true * exposure / 4, (2, N_VARS))
    totals[0, :10] = 3_000
    assert dispersion_index(torch.as_tensor(totals), torch.as_tensor(exposures)) == 4.0
