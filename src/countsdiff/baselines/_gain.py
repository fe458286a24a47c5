from dataclasses import dataclass
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Counts, Imputer, Missing, at_own_depth, gene_means, observe
from ._torch import BLOCK, LogScale, ResidualMLP, as_tensors, known_depth, leave_known, seeded, train, uniform

_HINT = 0.9
_ALPHA = 1_000.0  # of 10, 100 and 1,000 it imputed best
_NOISE = 0.01
_START = -3.0  # log odds at which the generator starts: most entries are near 0


@dataclass(frozen=True)
class GAIN(Imputer):
    """Generative adversarial imputation (Yoon et al. 2018).

    A generator sees known entries, and noise below .01 at the others; a discriminator tells for each entry whether it
    was known, with nine in ten of the answers given as a hint. The generator is to deceive it, and to reconstruct the
    known entries. Training hides a random share of the observed entries, so that it also learns from cells without
    missing ones; entries hidden and missing are alike to both networks. Both take a step per minibatch, and the
    weights that best predict hidden entries of held-out cells are kept.

    Made for counts: entries are counts per size factor, log-transformed and scaled to [0, 1] gene by gene. What is
    imputed goes back to counts, and to the cell's own depth, since the mean of a logarithm is too low. Observed
    entries come back as they are.

    Parameters
    ----------
    n_steps
        Number of minibatches; None for seven tenths of the number of cells, within 1,500 and 20,000.
    width
        Hidden width of both networks.

    References
    ----------
    Yoon, Jordon & van der Schaar (2018), GAIN: missing data imputation using generative adversarial nets, ICML.
    """

    n_steps: int | None = None
    width: int = 256
    name: ClassVar[str] = "gain"

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedGAIN":
        """Train on the observed entries; see :class:`Imputer`.

        Raises
        ------
        ValueError
            If no entry is observed.
        """
        counts, observed = observe(counts, missing)
        x, seen = as_tensors(counts, observed)
        means = x.new_tensor(gene_means(counts, observed))
        largest = torch.log1p(x / known_depth(x, seen, means)).amax(0)
        space = LogScale(means, torch.zeros_like(means), torch.where(largest > 0.0, largest, 1.0))

        def generate(networks: _Networks, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
            known = leave_known(seen[rows], generator)
            values = space.to_values(x[rows], space.depth(x[rows], known))
            return known, values, networks.generate(values, known, generator)

        def loss(networks: _Networks, rows: Tensor, generator: torch.Generator) -> Tensor:
            known, values, generated = generate(networks, rows, generator)
            truth = known.to(values.dtype)
            told = uniform(values.shape, generator) < _HINT
            hint = torch.where(told, truth, 0.5)
            filled = torch.where(known, values, generated)
            deception = (1.0 - truth) * F.softplus(-networks.detect(filled, hint, learn=False))
            reconstruction = (generated - values)[known].square().mean()
            detection = F.binary_cross_entropy_with_logits(networks.detect(filled.detach(), hint, learn=True), truth)
            return detection + deception.sum() / (1.0 - truth).sum() + _ALPHA * reconstruction

        def score(networks: _Networks, rows: Tensor, generator: torch.Generator) -> Tensor:
            known, values, generated = generate(networks, rows, generator)
            return (generated - values)[seen[rows] & ~known].square().mean()

        networks = train(lambda: _Networks(x.shape[1], self.width), loss, score, seen, n_steps=self.n_steps, seed=seed)
        return _FittedGAIN(networks, space, seed)


@dataclass(frozen=True)
class _FittedGAIN:
    networks: "_Networks"
    space: LogScale
    seed: int

    @torch.no_grad()
    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        counts, observed = observe(counts, missing, n_vars=len(self.space.means))
        tensors = as_tensors(counts, observed)
        generator = seeded(self.seed, tensors[0].device)
        blocks = []
        for x, known in zip(*(tensor.split(BLOCK) for tensor in tensors), strict=True):
            depth = self.space.depth(x, known)
            generated = self.networks.generate(self.space.to_values(x, depth), known, generator)
            blocks.append(self.space.to_counts(generated, depth))
        imputed = at_own_depth(torch.cat(blocks).cpu().numpy(), counts, observed)
        imputed[observed > 0] = counts[observed > 0]
        return imputed


class _Networks(nn.Module):
    def __init__(self, n_vars: int, width: int):
        super().__init__()
        self.generator = ResidualMLP(2 * n_vars, n_vars, width)
        self.discriminator = ResidualMLP(2 * n_vars, n_vars, width)

    def generate(self, values: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        """Generate every entry, in [0, 1], from those known."""
        noise = _NOISE * uniform(values.shape, generator)
        evidence = torch.cat([torch.where(known, values, noise), known.to(values.dtype)], dim=1)
        return torch.sigmoid(_START + self.generator(evidence))

    def detect(self, filled: Tensor, hint: Tensor, *, learn: bool) -> Tensor:
        """Log odds of each entry to be a known one; without `learn` the discriminator is taken for fixed."""
        self.discriminator.requires_grad_(learn)
        odds: Tensor = self.discriminator(torch.cat([filled, hint], dim=1))
        return odds
