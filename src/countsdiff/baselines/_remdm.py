import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Counts, Imputer, Missing, gene_means, observe
from ._torch import BLOCK, ResidualMLP, as_tensors, known_depth, leave_known, seeded, train, uniform

_RANK = 8  # numbers by which the network moves a gene's law
_LARGEST_CAP = 64
_BIN_RATIO = 1.25
_N_STEPS = 100
_REMASKING = 0.02


@dataclass(frozen=True)
class ReMDM(Imputer):
    """Masked discrete diffusion with remasking, on counts as tokens (Wang et al. 2025).

    Missing entries start masked, are unmasked at random over 100 steps, and on the way masked again with 0.02 times
    the largest probability that leaves the marginals right ("rescale"; the survival of tokens is linear in time).
    Observed entries are never masked; training hides a random share of them, with the weights of the evidence lower
    bound, and missing entries carry no loss. Imputation is the mean of the predicted laws in a single pass.

    Made for counts: every count up to a cap is a token, and above it there are bins a quarter wider each, which return
    counts that were observed in them (see :class:`Vocabulary`). The network sees logarithms of counts instead of
    embedded tokens and moves each gene's marginal law by eight numbers, times shapes that all genes share, so a
    vocabulary costs little. It is told the size factor. With embeddings, or without the marginals, it learnt far more
    slowly.

    Parameters
    ----------
    n_steps
        Number of minibatches; None for seven tenths of the number of cells, within 1,500 and 20,000.
    width
        Hidden width of the network.

    References
    ----------
    Wang, Schiff, Sahoo & Kuleshov (2025), Remasking discrete diffusion models with inference-time scaling, NeurIPS.
    """

    n_steps: int | None = None
    width: int = 256
    name: ClassVar[str] = "remdm"

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedReMDM":
        """Train on the observed entries; see :class:`Imputer`.

        Raises
        ------
        ValueError
            If no entry is observed.
        """
        counts, observed = observe(counts, missing)
        x, seen = as_tensors(counts, observed)
        vocabulary = Vocabulary(counts[observed > 0], x.device)
        tokens = vocabulary.encode(x)
        means = x.new_tensor(gene_means(counts, observed))

        def build() -> _Denoiser:
            return _Denoiser(_marginals(tokens, seen, len(vocabulary.means)), means, self.width)

        def loss(network: _Denoiser, rows: Tensor, generator: torch.Generator) -> Tensor:
            known = leave_known(seen[rows], generator)
            cell, gene = (seen[rows] & ~known).nonzero(as_tuple=True)
            logits = network.logits(network(x[rows], known)[cell, gene], gene)
            surprise = F.cross_entropy(logits, tokens[rows][cell, gene], reduction="none")
            # the bound divides by the share that is hidden, and so does this, by the share that happens to be
            n_hidden = torch.bincount(cell, minlength=len(rows))
            return (surprise / n_hidden[cell]).sum() / len(rows)

        network = train(build, loss, loss, seen, n_steps=self.n_steps, seed=seed)
        return _FittedReMDM(network, vocabulary)


@dataclass(frozen=True)
class _FittedReMDM:
    network: "_Denoiser"
    vocabulary: "Vocabulary"

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        return self._in_one_pass(counts, missing, lambda law: law @ self.vocabulary.means)

    def impute_whole(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        return self._in_one_pass(counts, missing, self.vocabulary.median)

    @torch.no_grad()
    def _in_one_pass(self, counts: Counts, missing: Missing | None, summary: Callable[[Tensor], Tensor]) -> Counts:
        """Put a summary of its law, over tokens, in the place of every missing entry."""
        counts, observed = observe(counts, missing, n_vars=len(self.network.means))
        x, known = as_tensors(counts, observed)
        for block, seen in zip(x.split(BLOCK), known.split(BLOCK), strict=True):  # blocks are views of x
            cell, gene = (~seen).nonzero(as_tuple=True)
            logits = self.network.logits(self.network(block, seen)[cell, gene], gene)
            block[cell, gene] = summary(logits.softmax(1))
        return x.cpu().numpy()

    def sample(
        self,
        counts: Counts,
        missing: Missing | None,
        n_samples: int,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> Counts:
        counts, observed = observe(counts, missing, n_vars=len(self.network.means))
        x, known = as_tensors(counts, observed)
        generator = seeded(seed, x.device)
        samples = x.repeat(n_samples, 1, 1)
        for sample in samples:
            for block, seen in zip(sample.split(BLOCK), known.split(BLOCK), strict=True):
                self._unmask(block, seen, generator)
        return samples.cpu().numpy()

    @torch.no_grad()
    def _unmask(self, x: Tensor, known: Tensor, generator: torch.Generator) -> None:
        """Draw the unknown entries of `x` in place."""
        unmasked = known.clone()
        for step in range(_N_STEPS):
            survival, then = step / _N_STEPS, (step + 1) / _N_STEPS
            remasked = _REMASKING * min(1.0, (1.0 - then) / max(survival, 1e-9))
            revealed = (then - (1.0 - remasked) * survival) / (1.0 - survival)
            chance = uniform(x.shape, generator)
            reveal = ~unmasked & (chance < revealed)
            cell, gene = reveal.nonzero(as_tuple=True)
            law = self.network.logits(self.network(x, unmasked)[cell, gene], gene).softmax(1)
            unmasked = torch.where(unmasked, known | (chance >= remasked), reveal)
            x[cell, gene] = self.vocabulary.draw(law, generator)


class Vocabulary:
    """Tokens for counts: one for each up to a cap, and above it one for each bin in which counts were observed.

    The cap is the .999 quantile of what was observed, 64 at most.

    Parameters
    ----------
    counts
        Observed counts, shape ``(n_entries,)``.
    device
        Where the tensors are to be.

    Attributes
    ----------
    means
        Mean count of each token, shape ``(n_tokens,)``.
    """

    def __init__(self, counts: NDArray[np.float32], device: torch.device | None = None):
        counts = np.rint(counts)
        cap = min(math.ceil(np.quantile(counts, 0.999)), _LARGEST_CAP) if counts.size else 0
        tail = np.sort(counts[counts > cap])
        n_bins = math.ceil(math.log((tail[-1] + 1) / (cap + 1), _BIN_RATIO)) if tail.size else 0
        bins = np.ceil((cap + 1) * _BIN_RATIO ** np.arange(n_bins))
        # all counts that tokens stand for, token by token: one each up to the cap, and above what was observed
        values = np.concatenate([np.arange(cap + 1), tail])
        starts = np.unique(np.searchsorted(values, np.concatenate([np.arange(cap + 1), bins])))
        starts = starts[starts < len(values)]
        sizes = np.diff(starts, append=len(values))
        self.means = torch.from_numpy(np.add.reduceat(values, starts) / sizes).float().to(device)
        self._values = torch.from_numpy(values).float().to(device)
        self._starts, self._sizes = torch.from_numpy(starts).to(device), torch.from_numpy(sizes).to(device)

    def encode(self, counts: Tensor) -> Tensor:
        """Token of each count, int64; counts beyond all that was observed get the last."""
        return torch.searchsorted(self._values[self._starts], counts.round(), right=True) - 1

    def median(self, law: Tensor) -> Tensor:
        """Medians of laws over tokens, shape ``(n_entries, n_tokens)``; within a bin, of what was observed there."""
        token = (law.cumsum(1) < 0.5).sum(1).clamp(max=len(self.means) - 1)
        return self._values[self._starts[token] + self._sizes[token] // 2]

    def draw(self, law: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a count from each law over tokens, shape ``(n_entries, n_tokens)``."""
        if not len(law):
            return law.new_empty(0)
        token = torch.multinomial(law, 1, generator=generator).squeeze(1)
        place = uniform(token.shape, generator) * self._sizes[token]
        return self._values[self._starts[token] + place.long()]


class _Denoiser(nn.Module):
    marginals: Tensor
    means: Tensor

    def __init__(self, marginals: Tensor, means: Tensor, width: int):
        super().__init__()
        n_vars, n_tokens = marginals.shape
        self.trunk = ResidualMLP(2 * n_vars + 1, _RANK * n_vars, width)
        # waves over the ordered tokens: neighbours begin alike
        place = (torch.arange(n_tokens) + 0.5) / n_tokens
        self.shapes = nn.Parameter(torch.cos(math.pi * torch.arange(1, _RANK + 1).unsqueeze(1) * place))
        self.register_buffer("marginals", marginals.log())
        self.register_buffer("means", means)

    def forward(self, counts: Tensor, known: Tensor) -> Tensor:
        """What moves the law of every entry, shape ``(n_obs, n_vars, 8)``."""
        depth = known_depth(counts, known, self.means)
        known = known.to(counts.dtype)
        evidence = torch.cat([known * torch.log1p(counts), known, depth.log()], dim=1)
        moves: Tensor = self.trunk(evidence)
        return moves.view(*counts.shape, _RANK)

    def logits(self, moves: Tensor, gene: Tensor) -> Tensor:
        """Law over tokens of single entries, shape ``(n_entries, n_tokens)``, by their moves and genes."""
        return moves @ self.shapes + self.marginals[gene]


def _marginals(tokens: Tensor, observed: Tensor, n_tokens: int) -> Tensor:
    """Share of every token among a gene's observed entries, and one entry that is the average of all genes."""
    n_vars = tokens.shape[1]
    keys = tokens + n_tokens * torch.arange(n_vars, device=tokens.device)
    counted = torch.bincount(keys[observed], minlength=n_vars * n_tokens).view(n_vars, n_tokens)
    pooled = counted.sum(0) + 1.0
    return (counted + pooled / pooled.sum()) / (counted.sum(1, keepdim=True) + 1.0)
