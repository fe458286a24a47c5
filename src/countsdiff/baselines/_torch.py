"""What the torch rivals share: a network, a way to train it, and entries to hide from it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from countsdiff.arguments import check_whole
from countsdiff.core.ema import ExponentialMovingAverage
from countsdiff.core.optim import adamw_cycle
from countsdiff.nn.embed import zeroed

_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK = 2048 if _DEVICE.type == "cuda" else 256  # cells predicted at a time

_BATCH = 128
_DEPTH = 2
_DROPOUT = 0.2
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 0.1
_SHARE_EMPTY = 0.1
_N_SCORES = 20
_LARGEST_HELD_OUT = 1_000

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class ResidualMLP(nn.Module):
    """Residual MLP as deep, and by default as wide, as the default backbone of countsdiff.

    Its output is 0 until it is trained.

    Parameters
    ----------
    n_in, n_out
        Numbers of input and output features.
    width
        Hidden width.
    """

    def __init__(self, n_in: int, n_out: int, width: int):
        super().__init__()
        self.encode = nn.Linear(n_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.GELU(),
                nn.Dropout(_DROPOUT),
                nn.Linear(width, width),
            )
            for _ in range(_DEPTH)
        )
        self.norm = nn.LayerNorm(width)
        self.decode = zeroed(nn.Linear(width, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map features of shape ``(n_obs, n_in)`` to ``(n_obs, n_out)``."""
        h = F.dropout(F.gelu(self.encode(x)), _DROPOUT, self.training)
        for block in self.blocks:
            h = h + block(h)
        decoded: Tensor = self.decode(self.norm(h))
        return decoded


def train(
    build: Callable[[], ModuleT],
    loss: Callable[[ModuleT, Tensor, torch.Generator], Tensor],
    score: Callable[[ModuleT, Tensor, torch.Generator], Tensor],
    observed: Tensor,
    *,
    n_steps: int | None,
    seed: int,
) -> ModuleT:
    """Train much like countsdiff: AdamW on one cycle, minibatches of 128 cells, averaged weights, the best kept.

    The weight decay is .1 for any number of cells, where that of countsdiff is 6 for few: with 6, ReMDM has R² .728 on
    fetal heart spots (25 % hidden), with 1 .791, with .1 .792.

    Parameters
    ----------
    build
        Makes the module.
    loss
        (module, rows, generator) → the loss of a minibatch; rows are integers of shape ``(n_batch,)``.
    score
        The same for the tenth of the cells that is held out, 1,000 at most, with the averaged module: lower is better.
    observed
        Boolean, shape ``(n_obs, n_vars)``; cells without an observed entry are left out.
    n_steps
        Number of minibatches; None for seven tenths of the number of cells, within 1,500 and 20,000.
    seed
        Seed of weights, minibatches, dropout and whatever the loss draws. The global generator of torch is left as it
        was.

    Returns
    -------
    torch.nn.Module
        The averaged module at its best score, in evaluation mode.

    Raises
    ------
    ValueError
        If no entry is observed.
    """
    cells = observed.any(1).nonzero().squeeze(1)
    n_obs = len(cells)
    if n_obs == 0:
        raise ValueError("no entry is observed: there is nothing to learn from")
    if n_steps is None:
        n_steps = min(max(7 * n_obs // 10, 1_500), 20_000)
    check_whole(1, n_steps=n_steps)
    device = observed.device
    generator = seeded(seed, device)
    cells = cells[torch.randperm(n_obs, generator=generator, device=device)]
    n_held_out = min(n_obs // 10, _LARGEST_HELD_OUT)
    held_out, training = cells[:n_held_out], cells[n_held_out:]
    with torch.random.fork_rng():  # layers draw their weights and dropout from the global generator only
        torch.manual_seed(seed)
        module = build().to(device)
        averaged = ExponentialMovingAverage(module)
        optimizer, cycle = adamw_cycle(module.parameters(), _LEARNING_RATE, _WEIGHT_DECAY, n_steps)
        best, weights = float("inf"), averaged.module.state_dict()  # a view: the last weights, until there is a best
        for step in range(1, n_steps + 1):
            rows = training[torch.randint(len(training), (_BATCH,), generator=generator, device=device)]
            optimizer.zero_grad()
            loss(module, rows, generator).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            cycle.step()
            averaged.update(module)
            if step % max(n_steps // _N_SCORES, 1) == 0 and len(held_out):
                with torch.no_grad():
                    now = float(score(averaged.module, held_out, seeded(seed + 1, device)))
                if now < best:
                    best, weights = now, copy.deepcopy(averaged.module.state_dict())
    averaged.module.load_state_dict(weights)
    return averaged.module


def leave_known(observed: Tensor, generator: torch.Generator) -> Tensor:
    """Leave a random share of each cell's observed entries known, and of one cell in ten none.

    Parameters
    ----------
    observed
        Boolean, shape ``(n_obs, n_vars)``.
    generator
        Source of randomness.

    Returns
    -------
    torch.Tensor
        Boolean of the same shape: observed, and not hidden.
    """
    share = uniform((len(observed), 1), generator)
    empty = uniform((len(observed), 1), generator) < _SHARE_EMPTY
    kept = uniform(observed.shape, generator) >= torch.where(empty, 1.0, share)
    return observed & kept


def known_depth(counts: Tensor, known: Tensor, means: Tensor) -> Tensor:
    """Size factor by the known entries, shape ``(n_obs, 1)``: 1 where nothing is known, and never 0.

    Parameters
    ----------
    counts, known
        Counts, and which of them count; shape ``(n_obs, n_vars)``.
    means
        Mean of each gene, shape ``(n_vars,)``.
    """
    known = known.to(counts.dtype)
    # one molecule stands for the average cell
    return ((counts * known).sum(1, keepdim=True) + 1.0) / ((known @ means).unsqueeze(1) + 1.0)


@dataclass(frozen=True)
class LogScale:
    """Logarithms of counts per unit of size factor, shifted and scaled gene by gene.

    Parameters
    ----------
    means, shift, scale
        Mean count, and shift and scale of the logarithm, of each gene; shape ``(n_vars,)``.
    """

    means: Tensor
    shift: Tensor
    scale: Tensor

    def depth(self, counts: Tensor, known: Tensor) -> Tensor:
        """Size factor by the known entries, see :func:`known_depth`."""
        return known_depth(counts, known, self.means)

    def to_values(self, counts: Tensor, depth: Tensor) -> Tensor:
        """Bring counts of shape ``(n_obs, n_vars)`` to the scale of the network."""
        return (torch.log1p(counts / depth) - self.shift) / self.scale

    def to_counts(self, values: Tensor, depth: Tensor) -> Tensor:
        """Undo :meth:`to_values`; counts are not negative."""
        return torch.expm1(values * self.scale + self.shift).clamp(min=0.0) * depth


def as_tensors(counts: NDArray[np.float32], observed: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Return counts, and a boolean of what is observed, as tensors; on a GPU if there is one, and all else follows."""
    return torch.from_numpy(counts).to(_DEVICE), torch.from_numpy(observed > 0).to(_DEVICE)


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """Return a source of randomness on a device."""
    return torch.Generator(device).manual_seed(seed)


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw uniform numbers in [0, 1) on the device of their source."""
    return torch.rand(*shape, generator=generator, device=generator.device)


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers on the device of their source."""
    return torch.randn(*shape, generator=generator, device=generator.device)
