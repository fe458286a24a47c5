import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from countsdiff.arguments import check_whole
from countsdiff.core.count_law import CountLaw
from countsdiff.core.loss import negative_binomial_loss

from ._base import Counts, Imputer, Missing, at_own_depth, gene_means, normalise, observe, size_factors

_BATCH = 32
_MAX_EPOCHS = 300
_PATIENCE = 15  # epochs without progress until training stops
_PATIENCE_RATE = 10  # and until the learning rate falls to a tenth
_LEARNING_RATE = 1e-3
_LARGEST_GRADIENT = 5.0
_SHARE_HIDDEN = 0.2  # of the observed entries of held-out cells


@dataclass(frozen=True)
class NBAutoencoder(Imputer):
    """Deep count autoencoder, with a loss that knows missing entries (DCA, Eraslan et al. 2019).

    Log-transformed counts per size factor, standardised, go through layers of 64, 32 and 64 units with batch
    normalisation to the mean per size factor and the dispersion of a negative binomial, both for every entry. Training
    is that of the authors: RMSprop, minibatches of 32 cells, at most 300 epochs, a tenth of the learning rate after 10
    epochs without progress, the end after 15; the best weights are kept.

    DCA knows no missing entries. Here they enter at their gene's mean, carry no loss, and size factors leave them out.
    Progress is measured on the tenth of the cells that is held out, by entries hidden from the network, a fifth of
    them: measured by entries that it sees, training with few genes never stopped before the network copied them.
    The means are brought back to the cell's own depth; samples are negative binomial around them, independent given
    the cell.

    Parameters
    ----------
    n_steps
        Largest number of minibatches, rounded up to whole epochs; None for 300 epochs.
    width
        Width of the outer layers; the bottleneck has half of it.

    References
    ----------
    Eraslan et al. (2019), Single-cell RNA-seq denoising using a deep count autoencoder, Nat. Commun. 10, 390.
    """

    n_steps: int | None = None
    width: int = 64
    name: ClassVar[str] = "nb_autoencoder"

    def fit(
        self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0
    ) -> "_FittedNBAutoencoder":
        """Train on the observed entries; see :class:`Imputer`.

        Raises
        ------
        ValueError
            If fewer than three cells have an observed entry.
        """
        counts, observed = observe(counts, missing)
        cells = observed.any(axis=1)
        if cells.sum() < 3:
            raise ValueError(f"an autoencoder needs three cells to learn from; got {cells.sum()}")
        counts, observed = counts[cells], observed[cells]
        means = gene_means(counts, observed)
        logs = np.log1p(normalise(counts, size_factors(counts, observed, means)))
        centre = gene_means(logs, observed)
        spread = np.sqrt(gene_means((logs - centre) ** 2 * observed, observed))
        inputs = _Inputs(means, centre, np.where(spread > 0, spread, np.float32(1)))
        with torch.random.fork_rng():  # layers draw their weights from the global generator only
            torch.manual_seed(seed)
            network = _Autoencoder(counts.shape[1], self.width)
        generator = torch.Generator().manual_seed(seed)
        _train(network, inputs(counts, observed), counts, observed, self.n_steps, generator)
        return _FittedNBAutoencoder(network.eval(), inputs)


@dataclass(frozen=True)
class _FittedNBAutoencoder:
    network: "_Autoencoder"
    inputs: "_Inputs"

    def impute(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        return self._law(counts, missing)[0]

    def impute_whole(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None) -> Counts:
        mean, shape = (torch.from_numpy(values) for values in self._law(counts, missing))
        return CountLaw(mean, shape).quantile(torch.full_like(mean, 0.5)).numpy()

    def sample(
        self,
        counts: Counts,
        missing: Missing | None,
        n_samples: int,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> Counts:
        mean, shape = self._law(counts, missing)
        rng = np.random.default_rng(seed)
        samples = np.empty((n_samples, *mean.shape), dtype=np.float32)
        for sample in samples:
            sample[:] = rng.poisson(rng.gamma(shape, mean / shape))
        return samples

    @torch.no_grad()
    def _law(self, counts: Counts, missing: Missing | None) -> tuple[Counts, NDArray[np.float32]]:
        """Mean and shape of every entry."""
        counts, observed = observe(counts, missing, n_vars=len(self.inputs.means))
        values, size = self.inputs(counts, observed)
        mean, shape = self.network(values, size)
        return at_own_depth(mean.numpy(), counts, observed), shape.numpy()


@dataclass(frozen=True)
class _Inputs:
    """What the network sees of cells: standardised logarithms, and size factors of shape ``(n_obs, 1)``."""

    means: NDArray[np.float32]
    centre: NDArray[np.float32]
    spread: NDArray[np.float32]

    def __call__(self, counts: Counts, observed: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        size = size_factors(counts, observed, self.means)
        values = (np.log1p(normalise(counts, size)) - self.centre) / self.spread * observed
        return torch.from_numpy(values), torch.from_numpy(size).unsqueeze(1)


class _Autoencoder(nn.Module):
    def __init__(self, n_vars: int, width: int):
        super().__init__()
        widths = [n_vars, width, width // 2, width]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.mean = nn.Linear(width, n_vars)
        self.shape = nn.Linear(width, n_vars)

    def forward(self, values: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and shape of the negative binomial of every entry, within the bounds of the authors."""
        h = self.trunk(values)
        return size * self.mean(h).exp().clamp(1e-5, 1e6), F.softplus(self.shape(h)).clamp(1e-4, 1e4)


def _train(
    network: _Autoencoder,
    inputs: tuple[Tensor, Tensor],
    counts: Counts,
    observed: NDArray[np.float32],
    n_steps: int | None,
    generator: torch.Generator,
) -> None:
    values, size = inputs
    x, weight = torch.from_numpy(counts), torch.from_numpy(observed)
    cells = torch.randperm(len(x), generator=generator)
    n_held_out = max(len(x) // 10, 1)
    held_out, training = cells[:n_held_out], cells[n_held_out:]
    n_epochs = _MAX_EPOCHS
    if n_steps is not None:
        check_whole(1, n_steps=n_steps)
        n_epochs = math.ceil(n_steps / math.ceil(len(training) / _BATCH))
    optimizer = torch.optim.RMSprop(network.parameters(), lr=_LEARNING_RATE, alpha=0.9)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=_PATIENCE_RATE)

    hidden = torch.rand(n_held_out, x.shape[1], generator=generator) < _SHARE_HIDDEN

    def loss(rows: Tensor, seen: Tensor, scored: Tensor) -> Tensor:
        mean, shape = network(seen, size[rows])
        return (scored * negative_binomial_loss(x[rows], shape, mean)).sum() / scored.sum()

    best, best_epoch, weights = math.inf, 0, copy.deepcopy(network.state_dict())
    for epoch in range(n_epochs):
        network.train()
        for rows in training[torch.randperm(len(training), generator=generator)].split(_BATCH):
            if len(rows) > 1:  # batch normalisation knows no single cell
                optimizer.zero_grad()
                loss(rows, values[rows], weight[rows]).backward()
                nn.utils.clip_grad_value_(network.parameters(), _LARGEST_GRADIENT)
                optimizer.step()
        network.eval()
        with torch.no_grad():
            now = float(loss(held_out, values[held_out] * ~hidden, weight[held_out] * hidden))
        plateau.step(now)
        if now < best:
            best, best_epoch, weights = now, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= _PATIENCE:
            break
    network.load_state_dict(weights)
