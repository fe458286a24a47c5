import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ._base import Counts, Imputer, Missing, gene_means, median_of_draws, observe
from ._torch import BLOCK, LogScale, ResidualMLP, as_tensors, known_depth, leave_known, normal, seeded, train, uniform

_RANK = 4  # numbers by which the network speaks to each gene's head
_HEAD = 16
_N_FREQUENCIES = 4
_N_STEPS = 50
_MOLECULES = 3.0


@dataclass(frozen=True)
class GaussianDiffusion(Imputer):
    """Conditional Gaussian diffusion on log-normalised counts (as CSDI, Tashiro et al. 2021, and scIDPMs).

    Counts per size factor of the known entries, log-transformed and standardised. Noise (cosine schedule) is added to
    all entries but the known ones, which are conditions; training hides a random share of the observed entries, and
    as in CSDI missing entries enter as noised means and carry no loss. 50 ancestral steps, each prediction kept
    between zero and the gene's largest normalised count, or more where the size factor rests on few molecules; then
    the normalisation is undone and the draw rounded. Imputation is the mean of draws before rounding, as few draws of
    a rare gene are all zero.

    In place of a transformer, a residual MLP outputs four numbers per gene. From these, the gene's noised value and the
    noise level, a small network shared by all genes predicts the velocity (Salimans & Ho 2022): a plain MLP cannot pass
    on the noise of 1,000 genes. Errors count in units of log counts, not of standard deviations, which would
    give most weight to genes that hardly vary: imputation was worse then.

    Parameters
    ----------
    n_steps
        Number of minibatches; None for seven tenths of the number of cells, within 1,500 and 20,000.
    width
        Hidden width of the network.
    n_draws
        Draws that imputation averages.

    References
    ----------
    Tashiro et al. (2021), CSDI: conditional score-based diffusion models for probabilistic time series imputation,
    NeurIPS.
    Zhang & Liu (2025), scIDPMs: single-cell RNA-seq imputation using diffusion probabilistic models, IEEE J. Biomed.
    Health Inform. 29, 3057-3068.
    Salimans & Ho (2022), Progressive distillation for fast sampling of diffusion models, ICLR.
    """

    n_steps: int | None = None
    width: int = 256
    n_draws: int = 20
    name: ClassVar[str] = "gaussian_diffusion"

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedGaussianDiffusion":
        """Train on the observed entries; see :class:`Imputer`.

        Raises
        ------
        ValueError
            If no entry is observed.
        """
        counts, observed = observe(counts, missing)
        x, seen = as_tensors(counts, observed)
        space = _standardise(x, seen, x.new_tensor(gene_means(counts, observed)))

        def loss(network: _Denoiser, rows: Tensor, generator: torch.Generator) -> Tensor:
            known = leave_known(seen[rows], generator)
            depth = space.depth(x[rows], known)
            values = torch.where(seen[rows], space.to_values(x[rows], depth), 0.0)
            noise = normal(values.shape, generator)
            angle = uniform((len(rows), 1), generator) * (math.pi / 2)
            noised = torch.cos(angle) * values + torch.sin(angle) * noise
            velocity = torch.cos(angle) * noise - torch.sin(angle) * values
            predicted = network(torch.where(known, values, noised), known, angle, depth)
            errors = space.scale * (predicted - velocity)
            return errors[seen[rows] & ~known].square().mean()

        network = train(lambda: _Denoiser(x.shape[1], self.width), loss, loss, seen, n_steps=self.n_steps, seed=seed)
        largest = (x / space.depth(x, seen)).amax(0)
        return _FittedGaussianDiffusion(network, space, largest, self.n_draws, seed)


@dataclass(frozen=True)
class _FittedGaussianDiffusion:
    network: "_Denoiser"
    space: LogScale
    largest: Tensor  # normalised count of each gene, shape (n_vars,)
    n_draws: int
    seed: int

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        x, known, generator = self._start(counts, missing, self.seed)
        mean = sum(self._draw(x, known, generator) for _ in range(self.n_draws)) / self.n_draws
        return torch.where(known, x, mean).cpu().numpy()

    def impute_whole(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        return median_of_draws(self.sample(counts, missing, self.n_draws, labels=labels, seed=self.seed))

    def sample(
        self,
        counts: Counts,
        missing: Missing | None,
        n_samples: int,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> Counts:
        x, known, generator = self._start(counts, missing, seed)
        draws = torch.stack([self._draw(x, known, generator).round() for _ in range(n_samples)])
        return torch.where(known, x, draws).cpu().numpy()

    def _start(self, counts: Counts, missing: Missing | None, seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
        counts, observed = observe(counts, missing, n_vars=len(self.largest))
        x, known = as_tensors(counts, observed)
        return x, known, seeded(seed, x.device)

    @torch.no_grad()
    def _draw(self, counts: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        """Draw all entries once, not rounded; the known ones mean nothing."""
        blocks = zip(counts.split(BLOCK), known.split(BLOCK), strict=True)
        return torch.cat([self._denoise(*block, generator) for block in blocks])

    def _denoise(self, counts: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        depth = self.space.depth(counts, known)
        values = self.space.to_values(counts, depth)
        # a size factor that rests on few molecules could be off by as much as a few more of them would move it
        doubt = 1.0 + _MOLECULES / (known.to(counts.dtype) @ self.space.means + 1.0)
        unit = torch.tensor(1.0)
        largest = self.space.to_values(self.largest * doubt.unsqueeze(1), unit)
        smallest = self.space.to_values(torch.zeros_like(self.largest), unit)
        angles = torch.linspace(math.pi / 2, 0.0, _N_STEPS + 1, device=counts.device)
        state = normal(counts.shape, generator)
        for now, then in zip(angles[:-1], angles[1:], strict=True):
            velocity = self.network(torch.where(known, values, state), known, now.expand(len(counts), 1), depth)
            clean = torch.cos(now) * state - torch.sin(now) * velocity
            clean = torch.maximum(torch.minimum(clean, largest), smallest)
            # q(state then | state now, clean): alpha = cos, sigma = sin
            kept = torch.cos(now) / torch.cos(then)
            shrunk = (torch.sin(then) / torch.sin(now)) ** 2
            mean = kept * shrunk * state + (torch.cos(then) - kept * shrunk * torch.cos(now)) * clean
            spread = (shrunk * (1.0 - kept**2)).sqrt()
            state = mean + spread * normal(counts.shape, generator)
        return self.space.to_counts(state, depth)


class _Denoiser(nn.Module):
    def __init__(self, n_vars: int, width: int):
        super().__init__()
        n_time = 2 * _N_FREQUENCIES
        self.trunk = ResidualMLP(3 * n_vars + n_time + 1, _RANK * n_vars, width)
        self.entry = nn.Linear(_RANK + 1, _HEAD)
        self.time = nn.Linear(n_time, _HEAD)
        self.velocity = nn.Linear(_HEAD, 1)

    def forward(self, values: Tensor, known: Tensor, angle: Tensor, depth: Tensor) -> Tensor:
        """Velocity of every entry, shape ``(n_obs, n_vars)``, from clean values where known and noised ones elsewhere.

        `angle` is the noise level, cos the share of signal and sin that of noise, and `depth` the size factor, both of
        shape ``(n_obs, 1)``.
        """
        multiples = angle * 2.0 ** torch.arange(_N_FREQUENCIES, device=angle.device)
        time = torch.cat([torch.cos(multiples), torch.sin(multiples)], dim=1)
        clean = known.to(values.dtype)
        words = self.trunk(torch.cat([clean * values, clean, (1.0 - clean) * values, time, depth.log()], dim=1))
        entry = self.entry(torch.cat([words.view(*values.shape, _RANK), values.unsqueeze(2)], dim=2))
        predicted: Tensor = self.velocity(torch.relu(entry + self.time(time).unsqueeze(1)))
        return predicted.squeeze(2)


def _standardise(counts: Tensor, observed: Tensor, means: Tensor) -> LogScale:
    """Scale on which the observed entries of every gene have mean 0 and variance 1."""
    logs = torch.log1p(counts / known_depth(counts, observed, means))
    weight = observed / observed.sum(0).clamp(min=1)
    shift = (weight * logs).sum(0)
    scale = (weight * (logs - shift).square()).sum(0).sqrt()
    return LogScale(means, shift, torch.where(scale > 0.0, scale, 1.0))
