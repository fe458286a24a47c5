"""What a few numbers per cell say of all its variables: factor analysis, with anything unseen left out exactly."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEAST_PAIRS = 20  # observations of a pair of variables that a covariance is divided by at the least
_ROUNDS = 10  # of communalities and eigenvectors in turn: the third digit of neither moves any more
_TOGETHER = 16  # factors computed at a time
_LEAST_NOISE = 0.05  # of a variable, in average variances, and in its own


class FactorModel(nn.Module):
    """Posterior means of the factors f of z = W f + ε, from the entries that were seen.

    With f ~ N(0, 1) and noise of variance ψ of an entry seen in full, ψ / e of one seen at exposure e, the posterior
    mean is (1 + Wᵀ (e / ψ) W)⁻¹ Wᵀ (e / ψ) z, in which unseen entries do not appear. What is given is e z: log ratios
    that were shrunken as far as little was seen are such, with e = exposure × (r + m) / (r + exposure × m) for counts
    of mean m and gamma shape r. A network of fixed weights would have to learn as much for
    every pattern of what is seen.

    Other loadings come by ``load_state_dict``: those that are changed in place may not be looked at.

    Parameters
    ----------
    variables
        Positions of the variables that factors are inferred from, shape ``(n_seen,)``.
    loadings, noise
        W and ψ of these, shapes ``(n_seen, n_factors)`` and ``(n_seen,)``.
    """

    variables: Tensor
    loadings: Tensor
    noise: Tensor

    def __init__(self, variables: Tensor, loadings: Tensor, noise: Tensor):
        super().__init__()
        self.register_buffer("variables", variables)
        self.register_buffer("loadings", loadings)
        self.register_buffer("noise", noise)
        self._n_used = _count_used(loadings)

    @property
    def n_factors(self) -> int:
        """Number of factors, those that nothing loads on among them."""
        return int(self.loadings.shape[1])

    @classmethod
    def empty(cls, n_seen: int, n_factors: int) -> "FactorModel":
        """Factors that nothing loads on, and which are 0: until those of a file are loaded."""
        return cls(torch.arange(n_seen), torch.zeros(n_seen, n_factors), torch.ones(n_seen))

    @classmethod
    def fit(
        cls, variables: Tensor, n_factors: int, blocks: Iterable[tuple[Tensor, Tensor]], generator: torch.Generator
    ) -> "FactorModel":
        """Fit by principal factors: eigenvectors of the covariance with communalities on its diagonal.

        Parameters
        ----------
        variables
            As for the class.
        n_factors
            Number of factors; those that are no stronger than chance makes some of independent variables have no
            loadings, and the others as much variance as the variables have along them: a sample shows more.
        blocks
            z, 0 where unseen, and which entries were seen (0 or 1), of these variables: blocks of rows, float32.
        generator
            Draws where the search for eigenvectors begins.
        """
        n_seen = len(variables)
        products, pairs = torch.zeros(n_seen, n_seen), torch.zeros(n_seen, n_seen)
        for z, seen in blocks:
            products += z.T @ z
            pairs += seen.T @ seen
        covariance = products / pairs.clamp(min=_LEAST_PAIRS)
        variance = covariance.diagonal().clone()
        floor = _LEAST_NOISE * variance.mean().clamp(min=1e-6)
        rank = min(n_factors, n_seen)
        n_obs = pairs.mean().clamp(min=1.0)
        basis = torch.linalg.qr(torch.randn(n_seen, min(2 * rank, n_seen), generator=generator)).Q
        communality = variance / 2.0
        loadings = torch.zeros(n_seen, n_factors)
        for _ in range(_ROUNDS):
            covariance.diagonal().copy_(communality)
            basis = torch.linalg.qr(covariance @ (covariance @ basis)).Q
            values, vectors = torch.linalg.eigh(basis.T @ covariance @ basis)
            noise = variance - communality
            strength = _without_chance(values, noise, n_obs)
            loadings[:, :rank] = (basis @ vectors * strength.sqrt())[:, -rank:].flip(1)
            communality = torch.minimum(loadings.square().sum(1), (1.0 - _LEAST_NOISE) * variance)
        return cls(variables, loadings, (variance - communality).clamp(min=floor))

    def forward(self, z: Tensor, exposure: Tensor) -> Tensor:
        """Posterior means, shape ``(n_obs, n_factors)``.

        Parameters
        ----------
        z
            Values of all variables, each times its exposure; shape ``(n_obs, n_vars)``.
        exposure
            At what exposure they were seen, in [0, 1]; same shape.
        """
        n_used = self._n_used
        with torch.autocast(z.device.type, enabled=False):
            z, exposure = z.index_select(1, self.variables), exposure.index_select(1, self.variables)
            loadings = self.loadings[:, :n_used].T.contiguous()  # a factor's together, as they are gathered
            precise = loadings / self.noise
            row, column = torch.tril_indices(n_used, n_used, device=z.device)
            lower = exposure @ (precise.index_select(0, row) * loadings.index_select(0, column)).T
            identity = torch.eye(n_used, device=z.device).flatten().repeat(len(z), 1)
            information = identity.index_add(1, row * n_used + column, lower).view(len(z), n_used, n_used)
            # of which only the lower half is read; no check of success, which a GPU would have to report to the host
            root, _ = torch.linalg.cholesky_ex(information)
            half = torch.linalg.solve_triangular(root, (z @ precise.T).unsqueeze(2), upper=False)
            factors = torch.linalg.solve_triangular(root.mT, half, upper=True).squeeze(2)
            return F.pad(factors, (0, self.n_factors - n_used))

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._n_used = _count_used(self.loadings)


def _count_used(loadings: Tensor) -> int:
    """Number of factors up to the last one that anything loads on, rounded up: the others, most in many data, are 0.

    Rounded, since products of fewer columns depend on where in its batch a row stands, if only in the last digit.
    """
    n_factors = loadings.shape[1]
    if loadings.is_meta:  # whose values are about to be loaded
        return n_factors
    used = loadings.any(0).nonzero()
    return min(-(-(int(used[-1]) + 1) // _TOGETHER) * _TOGETHER, n_factors) if len(used) > 0 else 0


def _without_chance(values: Tensor, noise: Tensor, n_obs: Tensor) -> Tensor:
    """Variance along the eigenvectors of a sample, which noise has turned, and whose eigenvalues it has made too large.

    Independent variables alone reach level + 2 √spread (Koltchinskii & Lounici 2017), and what is no larger becomes 0.
    What is larger gets the eigenvalue that a spiked covariance needs to come to it, times the squared cosine between
    its eigenvector and that of the sample (Benaych-Georges & Nadakuditi 2011; Donoho, Gavish & Johnstone 2018). With
    unequal noise these are approximations: the level takes its mean, the spread its largest.
    """
    level, spread = noise.sum() / n_obs, noise.max() * noise.sum() / n_obs
    above = values - level
    root = (above.square() - 4.0 * spread).clamp(min=0.0).sqrt()
    spike = ((above + root) / 2.0).clamp(min=1e-12)
    shrunk = (spike - spread / spike) / (1.0 + level / spike)
    return torch.where(above > 2.0 * spread.sqrt(), shrunk, 0.0)
