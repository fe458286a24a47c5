"""Predictive laws and samples set right on the cells of the data, see :mod:`countsdiff.core.calibration`."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from countsdiff.core.calibration import fit_drift, fit_level, fit_means, fit_memory, fit_sharpness, fit_tail
from countsdiff.core.denoiser import N_DRIFT, Context
from countsdiff.core.random import RowGenerator
from countsdiff.model._module import CountsDiffModule

Minibatches = Iterable[dict[str, Tensor]]

_LEVEL_SPREAD = 0.05  # of levels around 1 before anything is seen
_TRUST = 0.8  # in the level of trained entries, where no laws say how well they are known
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
    """Fit and store level, sharpness, tail and drift of a trained module.

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
    known, unknown = (_predictions(module, cells, seed, share_hidden) for cells in (trained, held_out))
    n_known, n_unknown, has_shapes = len(known[0]), len(unknown[0]), len(known[2]) > 0
    of_known, of_unknown = fit_level(*known[:2]), fit_level(*unknown[:2])
    trust = fit_memory(known[0], of_known * known[1], known[2]) if has_shapes else _TRUST
    level = of_known**trust * fit_level(*unknown[:2], spread=_LEVEL_SPREAD) ** (1.0 - trust)
    sharpness, tail = 1.0, math.inf
    if has_shapes:
        counts, mean, shape = (torch.cat(pair) for pair in zip(known, unknown, strict=True))
        # each at its own level: zeros that are missing for another's would be made up for by the shapes
        mean *= torch.cat([torch.full((n_known,), of_known), torch.full((n_unknown,), of_unknown)])
        share_known = max(trust, 0.01)
        each = n_known / max(n_unknown, 1) * (1.0 - share_known) / share_known
        weights = torch.cat([torch.ones(n_known, dtype=torch.float64), torch.full((n_unknown,), each)])
        sharpness = fit_sharpness(counts, mean, shape, weights)
        tail = fit_tail(counts, mean, sharpness * shape, weights)
    module.set_calibration(level, sharpness, tail)
    generator = torch.Generator(module.device).manual_seed(seed)
    contexts = [_as_imputed(module, tensors, generator, share_hidden) for tensors in trained]
    streams = [RowGenerator(seed, torch.arange(len(c.counts), device=module.device), i) for i, c in enumerate(contexts)]
    drift = fit_drift(module.averaged.module, contexts, streams, N_DRIFT)
    module.set_calibration(level, sharpness, tail, drift)


@torch.no_grad()
def adapt(module: CountsDiffModule, cells: Minibatches) -> None:
    """Set the means of variables, and the level of predictions, to those of other data than were trained on.

    What other data catch better or worse is seen by predicting their observed counts, not by comparing means, in which
    other shares of cell types look the same. Means are both what the network starts from and what it compares counts
    with: given new ones it sees cells as its own data would have shown them.

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
        for intensity, hidden in module.impute_folds(tensors, generator):
            mean, variance = intensity.mean, intensity.births(1.0).std.square()
            for total, values in (
                (counted, counts),
                (predicted, mean),
                (by_law, variance),
                (by_residuals, (counts - mean).square()),
            ):
                total += (values * hidden).sum(0).cpu()
    # laws know the noise of what is hardly ever seen, residuals that of a network that errs in many cells alike
    return torch.stack([counted, predicted, torch.maximum(by_law, by_residuals)])


def _level(counts: Tensor, mean: Tensor, variance: Tensor) -> float:
    """Factor of all predictions together, with a prior at 1."""
    if not mean.sum() > 0.0:
        return 1.0
    index = variance.sum() / mean.sum()
    return float((counts.sum() + index * _LEVEL_PRIOR) / (mean.sum() + index * _LEVEL_PRIOR))


def _predictions(
    module: CountsDiffModule, minibatches: Minibatches, seed: int, share_hidden: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Observed counts, and means and shapes predicted for them while hidden, ``(n,)``; some heads have no shapes."""
    generator = torch.Generator(module.device).manual_seed(seed)
    results: tuple[list[Tensor], ...] = ([torch.empty(0)], [torch.empty(0)], [torch.empty(0)])
    for tensors in minibatches:
        counts, _ = module.observed(tensors)
        for intensity, hidden in module.impute_folds(tensors, generator, share_hidden):
            for result, values in zip(results, (counts, intensity.mean, intensity.shape), strict=True):
                if values is not None:
                    result.append(values[hidden].cpu())
    counts, means, shapes = (torch.cat(result) for result in results)
    return counts, means, shapes


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
    return Context(counts * known, known, ~known, *module.covariates(tensors))
