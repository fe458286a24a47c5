"""Predictive laws and samples set right on the cells of the data, see :mod:`countsdiff.core.calibration`."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from countsdiff.core.calibration import fit_drift, fit_level, fit_sharpness, fit_tail
from countsdiff.core.denoiser import N_DRIFT, Context
from countsdiff.core.random import RowGenerator
from countsdiff.model._module import CountsDiffModule

Minibatches = Iterable[dict[str, Tensor]]

# weight of cells not trained on when levels and when shapes are fitted
_HELD_OUT_LEVEL, _HELD_OUT_SHAPE = 1 / 5, 1 / 3


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
    counts, mean, shape = (torch.cat(pair) for pair in zip(known, unknown, strict=True))
    n_known, n_unknown = len(known[0]), len(unknown[0])

    def weight(share_held_out: float) -> Tensor:
        each = n_known / max(n_unknown, 1) * share_held_out / (1.0 - share_held_out)
        return torch.cat([torch.ones(n_known, dtype=torch.float64), torch.full((n_unknown,), each)])

    level = fit_level(counts, mean, weight(_HELD_OUT_LEVEL))
    sharpness, tail = 1.0, math.inf
    if len(shape) > 0:
        mean, weights = level * mean, weight(_HELD_OUT_SHAPE)
        sharpness = fit_sharpness(counts, mean, shape, weights)
        tail = fit_tail(counts, mean, sharpness * shape, weights)
    module.set_calibration(level, sharpness, tail)
    generator = torch.Generator(module.device).manual_seed(seed)
    contexts = [_as_imputed(module, tensors, generator, share_hidden) for tensors in trained]
    streams = [RowGenerator(seed, torch.arange(len(c.counts), device=module.device), i) for i, c in enumerate(contexts)]
    drift = fit_drift(module.averaged.module, contexts, streams, N_DRIFT)
    module.set_calibration(level, sharpness, tail, drift)


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
