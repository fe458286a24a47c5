"""Predictive laws and samples set right on the cells of the data, see :mod:`countsdiff.core.fits`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from countsdiff.core.calibration import N_DRIFT, Corrections
from countsdiff.core.fits import (
    fit_drift,
    fit_level,
    fit_level_of_law,
    fit_means,
    fit_memory,
    fit_sharpness,
    fit_slope,
    fit_tail,
)
from countsdiff.core.heads import GammaHead
from countsdiff.core.interfaces import Context
from countsdiff.core.masks import as_numbers
from countsdiff.core.random import RowGenerator
from countsdiff.model._module import CountsDiffModule

Minibatches = Iterable[dict[str, Tensor]]

_LEVEL_SPREADS = 0.05, 0.2  # of levels around 1 before anything is seen; of a network that has memorised its cells
_SLOPE_SPREAD = 0.2  # of slopes
_KNOWN_LEVEL, _KNOWN_SHAPES = 0.8, 2 / 3  # weights of trained entries in the level and in the shapes, at most
_MEMORISED = 0.3  # excess variance left of trained entries, below which they go astray and are trusted less
_ROUNDS = 2  # of fitting means to other data; a third changed nothing
_LEVEL_PRIOR = 400.0  # molecules that a reference's level counts for: it holds within 5 %


@torch.no_grad()
def calibrate(
    module: CountsDiffModule,
    trained: Minibatches,
    held_out: Minibatches,
    seed: int,
    share_hidden: float | None = None,
) -> None:
    """Fit and store slope, level, sharpness, tail and drift of a trained module.

    Parameters
    ----------
    module
        Module, whose averaged weights predict.
    trained, held_out
        Minibatches of cells that were trained on, and of others, of which there may be none.
    seed
        Seed of what is hidden.
    share_hidden
        Share of the observed entries that training hid; None for any.
    """
    module.set_calibration()
    trained, held_out = (
        [{key: value.to(module.device) for key, value in minibatch.items()} for minibatch in minibatches]
        for minibatches in (trained, held_out)
    )
    known = _predictions(module, trained, seed, share_hidden)
    unknown = _predictions(module, held_out, seed, share_hidden, with_base=known.shape is not None)
    memory, slope = 1.0, 1.0
    if known.shape is not None:
        memory = fit_memory(known.counts, known.level() * known.mean, known.shape)
        # of trained entries it would be 1 and more: they are known as well as the network believes. Other entries of
        # trained cells are known far better than held-out cells, unless there was nothing to learn
        of_others = fit_slope(unknown.counts, unknown.mean, unknown.base, _SLOPE_SPREAD)
        slope = 1.0 - (1.0 - memory) * (1.0 - of_others) ** 2
    trust = min((memory / _MEMORISED) ** 2, 1.0)
    of_known = _KNOWN_LEVEL * trust
    usual, wide = _LEVEL_SPREADS
    level = known.level() ** of_known * unknown.level(trust * usual + (1.0 - trust) * wide) ** (1.0 - of_known)
    if slope != 1.0:
        module.set_calibration(Corrections(slope=slope))
        total = unknown.total()
        known, unknown = (_predictions(module, cells, seed, share_hidden) for cells in (trained, held_out))
        level *= total / unknown.total()  # which the slope is not to change
    found = Corrections(level, slope, *_fit_shapes(known, unknown, _KNOWN_SHAPES * trust))
    module.set_calibration(found)
    generator = torch.Generator(module.device).manual_seed(seed)
    contexts = [_as_imputed(module, tensors, generator, share_hidden) for tensors in trained]
    streams = [RowGenerator(seed, torch.arange(len(c.counts), device=module.device), i) for i, c in enumerate(contexts)]
    drift = fit_drift(module.averaged.module, contexts, streams, N_DRIFT)
    module.set_calibration(replace(found, drift=drift))


@torch.no_grad()
def adapt(module: CountsDiffModule, cells: Minibatches) -> None:
    """Set the means of variables, and the level of predictions, to those of other data than were trained on.

    Differences in capture efficiency are estimated by predicting the observed counts of the other data, not by
    comparing mean counts, in which other proportions of cell types would look the same. Means are both what the network
    starts from and what it compares counts with: with adapted means, the cells look to it like those it was trained on.

    Parameters
    ----------
    module
        Trained and calibrated module, whose averaged weights predict.
    cells
        Minibatches of the other data.
    """
    cells = [{key: value.to(module.device) for key, value in minibatch.items()} for minibatch in cells]
    reference = module.denoiser.mean.to("cpu", torch.float64)
    factors = torch.ones_like(reference)
    for _ in range(_ROUNDS):
        counts, mean, variance = _sums(module, cells)
        level = _level(counts, mean, variance)
        index = torch.where(mean > 0.0, variance / (level * mean), 1.0).clamp(min=1.0)
        factors = fit_means(counts, level * mean / factors, index)
        module.set_means((factors * reference).float())
    module.raise_level(_level(*_sums(module, cells)))


def _sums(module: CountsDiffModule, minibatches: Minibatches) -> Tensor:
    """Per variable: sum of observed counts, of their predictions while hidden, and of their variances; ``(3, n)``."""
    generator = torch.Generator(module.device).manual_seed(0)
    counted, predicted, by_law, by_residuals = torch.zeros(4, len(module.denoiser.mean), dtype=torch.float64)
    for tensors in minibatches:
        counts, _ = module.observed(tensors)
        for intensity, hidden, _ in module.impute_folds(tensors, generator):
            mean, variance = intensity.mean, intensity.births(1.0).std.square()
            for total, values in (
                (counted, counts),
                (predicted, mean),
                (by_law, variance),
                (by_residuals, (counts - mean).square()),
            ):
                total += (values * as_numbers(hidden)).sum(0).cpu()
    # laws know the noise of what is hardly ever seen, residuals that of a network that errs in many cells alike
    return torch.stack([counted, predicted, torch.maximum(by_law, by_residuals)])


def _level(counts: Tensor, mean: Tensor, variance: Tensor) -> float:
    """Factor of all predictions together, with a prior at 1."""
    if not mean.sum() > 0.0:
        return 1.0
    index = variance.sum() / mean.sum()
    return float((counts.sum() + index * _LEVEL_PRIOR) / (mean.sum() + index * _LEVEL_PRIOR))


@dataclass(frozen=True)
class _Predictions:
    """Observed counts of some cells; means, base rates and shapes predicted for them while hidden; all ``(n,)``.

    Base rates only where they were asked for; ``shape`` only of heads that have one.
    """

    counts: Tensor
    mean: Tensor
    base: Tensor
    shape: Tensor | None

    def __len__(self) -> int:
        return len(self.counts)

    def level(self, spread: float = math.inf) -> float:
        """See :func:`~countsdiff.core.fits.fit_level`."""
        return fit_level(self.counts, self.mean, spread)

    def total(self) -> float:
        """Sum of the means, 1 where there are none."""
        return float(self.mean.to(torch.float64).sum()) if len(self) > 0 else 1.0


def _predictions(
    module: CountsDiffModule,
    minibatches: Minibatches,
    seed: int,
    share_hidden: float | None,
    *,
    with_base: bool = False,
) -> _Predictions:
    """Predict the observed counts of cells, every one of them while it is hidden."""
    generator = torch.Generator(module.device).manual_seed(seed)
    counted, means, bases, shapes = ([torch.empty(0)] for _ in range(4))
    for tensors in minibatches:
        counts, _ = module.observed(tensors)
        for intensity, asked, context in module.impute_folds(tensors, generator, share_hidden):
            base = None
            if with_base:
                nothing = torch.zeros_like(counts)
                base = module.averaged.module.base_rate(nothing, nothing[:, :1], context)
            results = ((counted, counts), (means, intensity.mean), (bases, base), (shapes, intensity.shape))
            for result, values in results:
                if values is not None:
                    result.append(values[asked].cpu())
    has_shapes = isinstance(module.denoiser.head, GammaHead)  # whose formula is what slope and shapes go by
    return _Predictions(
        torch.cat(counted), torch.cat(means), torch.cat(bases), torch.cat(shapes) if has_shapes else None
    )


def _fit_shapes(known: _Predictions, unknown: _Predictions, trust: float) -> tuple[float, float]:
    """Sharpness and tail of the laws, with a weight of `trust` for trained entries."""
    if known.shape is None or unknown.shape is None:
        return 1.0, math.inf
    counts, shape = torch.cat([known.counts, unknown.counts]), torch.cat([known.shape, unknown.shape])
    # each part at its own level: otherwise the shapes would compensate for errors of the level
    levels = (
        fit_level_of_law(known.counts, known.mean, known.shape),
        fit_level_of_law(unknown.counts, unknown.mean, unknown.shape),
    )
    mean = torch.cat([level * part.mean for level, part in zip(levels, (known, unknown), strict=True)])
    share_known = max(trust, 0.01)
    each = len(known) / max(len(unknown), 1) * (1.0 - share_known) / share_known
    weights = torch.cat([torch.ones(len(known), dtype=torch.float64), torch.full((len(unknown),), each)])
    sharpness = fit_sharpness(counts, mean, shape, weights)
    return sharpness, fit_tail(counts, mean, sharpness * shape, weights)


def _as_imputed(
    module: CountsDiffModule, tensors: dict[str, Tensor], generator: torch.Generator, share_hidden: float | None
) -> Context:
    """Cells as they will be imputed: missing entries noised, or a share of the entries of complete cells."""
    counts, observed = module.observed(tensors)
    complete = observed.all(1, keepdim=True)
    share = torch.rand(len(counts), 1, generator=generator, device=counts.device)
    if share_hidden is not None:
        share = torch.full_like(share, share_hidden)
    hidden = torch.rand(counts.shape, generator=generator, device=counts.device) < share
    known = observed & ~(complete & hidden)
    return Context(counts * as_numbers(known), known, ~known, *module.covariates(tensors))
