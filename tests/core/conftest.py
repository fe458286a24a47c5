"""What several test files of the core share: a test of laws, contexts, and denoisers that know the truth."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from countsdiff.core import Context, Intensity


@pytest.fixture
def assert_law() -> Callable[[Tensor, object], None]:
    """Check draws against a frozen scipy law of whole numbers by Pearson's chi-square at alpha = 1e-4."""
    levels = np.concatenate([[1e-3], np.linspace(0.025, 0.975, 39), [0.999]])

    def check(draws: Tensor, law) -> None:
        x = draws.flatten().double().numpy()
        edges = np.unique(law.ppf(levels))  # bins (edge, next edge], about a fortieth of the draws in each
        share = np.diff(law.cdf(edges), prepend=0.0, append=1.0)
        seen = np.bincount(np.searchsorted(edges, x), minlength=len(share))
        possible = share > 1e-12
        assert np.array_equal(x, np.floor(x))
        assert seen[~possible].sum() == 0
        if possible.sum() == 1:  # a law of one number, of which the line above is the whole test
            return
        assert stats.chisquare(seen[possible], share[possible] / share[possible].sum() * len(x)).pvalue > 1e-4

    return check


@pytest.fixture
def make_context() -> Callable[..., Context]:
    """Build a context of which nothing is known and everything is noised, unless told otherwise."""

    def make(
        n_obs: int,
        n_vars: int,
        *,
        counts: Tensor | None = None,
        known: Tensor | None = None,
        noised: Tensor | None = None,
        categories: Tensor | None = None,
        continuous: Tensor | None = None,
    ) -> Context:
        known = torch.zeros(n_obs, n_vars, dtype=torch.bool) if known is None else known
        return Context(
            counts=torch.zeros(n_obs, n_vars) if counts is None else counts,
            known=known,
            noised=~known if noised is None else noised,
            categories=torch.empty(n_obs, 0, dtype=torch.int64) if categories is None else categories,
            continuous=torch.empty(n_obs, 0) if continuous is None else continuous,
        )

    return make


class GammaPoissonTruth:
    """Independent genes, rate ~ Gamma(r) of mean μ, counts Poisson: the exact posterior of the births (THEORY §4)."""

    def __init__(self, shape: list[float], mean: list[float]):
        self.shape, self.mean = torch.tensor(shape), torch.tensor(mean)

    def __call__(self, x_t: Tensor, p: Tensor, context: Context) -> Intensity:
        return Intensity(self.mean * (self.shape + x_t) / (self.shape + p * self.mean), self.shape + x_t)

    def law(self, var: int):
        """Law of the counts of one gene at p = 1."""
        r, mu = float(self.shape[var]), float(self.mean[var])
        return stats.nbinom(r, r / (r + mu))


class DiscretePrior:
    """One gene whose counts follow a given law on 0, 1, 2, …: λ(x, p) by Bayes' rule, term by term."""

    def __init__(self, prior: list[float]):
        self.prior = np.asarray(prior)
        self.support = np.arange(len(prior))

    def intensity(self, x_t: np.ndarray, p: np.ndarray) -> np.ndarray:
        """E[x_0 − x_t | x_t] / (1 − p), arguments broadcast."""
        x, q = np.broadcast_arrays(x_t, p)
        posterior = self.prior * stats.binom.pmf(x[..., None], self.support, q[..., None])
        lost = np.clip(self.support - x[..., None], 0, None)
        # a count that the prior rules out at p = 0 has no posterior, and none is ever asked for
        return (posterior * lost).sum(-1) / (np.maximum(posterior.sum(-1), 1e-300) * (1.0 - q))

    def __call__(self, x_t: Tensor, p: Tensor, context: Context) -> Intensity:
        # p is the same in all rows, and x one of a few numbers
        at_p = self.intensity(self.support, np.float64(p[0, 0]))
        return Intensity(torch.as_tensor(at_p, dtype=torch.float32)[x_t.long()])


@pytest.fixture
def gamma_poisson() -> type[GammaPoissonTruth]:
    return GammaPoissonTruth


@pytest.fixture
def discrete_prior() -> type[DiscretePrior]:
    return DiscretePrior
