"""Runs a trained module over cells, block by block, and puts the answers together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from countsdiff.core.count_law import CountLaw
from countsdiff.core.estimators import log_mean
from countsdiff.core.interfaces import Context, DenoiserFn, Intensity
from countsdiff.core.random import RowGenerator
from countsdiff.core.repaint import repaint
from countsdiff.core.sampler import SamplerState, sample
from countsdiff.counts import CellReader, dense_rows
from countsdiff.model.missing import Task
from countsdiff.model.request import Request

_REFERENCE_DEPTH = 1e4  # log_mean is for counts that will be normalised to 10,000 per cell, then log1p


@dataclass(frozen=True)
class Cells:
    """Cells to run over: counts, random keys and covariates, row by row.

    Attributes
    ----------
    reader
        Counts and missing entries.
    keys
        Random key per cell, int64.
    categories, continuous
        Covariates per cell as the module takes them.
    labels
        Code of each cell's label; ``None`` if no labels are registered.
    """

    reader: CellReader
    keys: NDArray[np.int64]
    categories: Tensor
    continuous: Tensor
    labels: NDArray[np.intp] | None = None


class Predictor:
    """Answers a request for blocks of cells.

    The network runs over blocks of a fixed number of rows, filled up where cells run out: matrix products of another
    size round differently, and results would depend on how the cells were cut into batches.

    Parameters
    ----------
    denoiser
        Denoiser, guided as wanted.
    cells
        Data.
    task
        Which entries to rewrite.
    request
        What to write there.
    device
        Where the network lives.
    callback
        Called after every step of a reverse path, see :func:`~countsdiff.core.sample`.
    group_sizes
        Numbers of variables that share a depth, see :class:`~countsdiff.core.denoiser.Denoiser`.
    """

    def __init__(
        self,
        denoiser: DenoiserFn,
        cells: Cells,
        task: Task,
        request: Request,
        device: torch.device,
        callback: Callable[[SamplerState], None] | None = None,
        group_sizes: Sequence[int] | None = None,
    ):
        self.denoiser = denoiser
        self.cells = cells
        self.task = task
        self.request = request
        self.device = device
        self.callback = callback
        self.group_sizes = group_sizes or [cells.reader.counts.shape[1]]
        self.tile = 256 if device.type == "cpu" else 2048

    @torch.inference_mode()
    def __call__(
        self, rows: NDArray[np.intp], chosen: NDArray[np.bool_]
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_]]:
        """Answer for `rows`, the model being asked about the `chosen` ones alone.

        Returns
        -------
        tuple
            One matrix per name of the request, ``(len(rows), n_vars)`` each, with observed entries as they were, and
            the boolean matrix of the rewritten entries.
        """
        counts, missing = self.cells.reader(rows)
        if chosen.all():
            answers, rewritten = self._answer(rows, counts, missing)
        else:
            rewritten = np.zeros_like(missing)
            answers = [np.zeros_like(counts) for _ in self.request.names()]
            if chosen.any():
                some, rewritten[chosen] = self._answer(rows[chosen], counts[chosen], missing[chosen])
                for answer, part in zip(answers, some, strict=True):
                    answer[chosen] = part
            counts[missing & ~rewritten] = np.nan  # missing entries of cells that are not chosen stay missing
        # an observed count has no spread; what is missing and was not asked for stays missing
        spread_free = np.where(np.isnan(counts), counts, np.float32(0)) if self.request.return_std else counts
        matrices = [
            np.where(rewritten, answer, spread_free if name == "_std" else counts)
            for name, answer in zip(self.request.names(), answers, strict=True)
        ]
        return [self.cells.reader.restore(matrix) for matrix in matrices], rewritten

    def _answer(
        self, rows: NDArray[np.intp], counts: NDArray[np.float32], missing: NDArray[np.bool_]
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_]]:
        if self.task.hidden is not None:
            missing = missing | dense_rows(self.task.hidden, rows, self.cells.reader.columns).astype(bool)
            counts[missing] = 0.0
        rewritten = self.task.rewritten(counts, missing)
        cuts = [slice(start, start + self.tile) for start in range(0, len(rows), self.tile)]
        tiles = [self._tile(rows[cut], counts[cut], missing[cut], rewritten[cut]) for cut in cuts]
        return [np.concatenate(parts) for parts in zip(*tiles, strict=True)], rewritten

    def _tile(
        self,
        rows: NDArray[np.intp],
        counts: NDArray[np.float32],
        missing: NDArray[np.bool_],
        rewritten: NDArray[np.bool_],
    ) -> list[NDArray[np.float32]]:
        context, keys = self._context(rows, counts, missing)
        request, p = self.request, float(self.task.evidence)
        x_t = torch.zeros_like(context.counts)
        if self.task.evidence:  # observed entries stand at p = 1: seen in full, and still asked about
            seen = context.known
            x_t, context = (
                context.counts,
                Context(x_t, torch.zeros_like(seen), seen, context.categories, context.continuous),
            )
        results: list[Tensor] = []
        if request.output == "sample" and not self.task.evidence:
            generators = [RowGenerator(request.seed, keys, stream) for stream in request.streams()]
            if request.repaint is None:
                callback = None if self.callback is None else partial(_of_rows, self.callback, len(rows))
                results += [sample(self.denoiser, context, g, request.sampler, callback) for g in generators]
            else:
                results += [repaint(self.denoiser, context, g, request.sampler, request.repaint) for g in generators]
        if len(results) < len(request.names()):
            # where the task adds to what was observed, that is kept, and one look of `depth` has been taken already
            base, exposure = x_t * self.task.adds, request.depth - context.noised.to(x_t.dtype) * self.task.adds
            law = self.denoiser(x_t, torch.full_like(x_t[:, :1], p), context).births(exposure)
            if not results:
                if request.output == "log_mean":
                    counted = context.noised if self.task.evidence else torch.zeros_like(context.noised)
                    wanted = self._filled(rewritten)
                    results.append(self._log_mean(law, base, context.counts + x_t, wanted, counted))
                else:
                    results += [base + born for born in _summarise(law, request, keys)]
            if request.return_std:
                results.append(law.std)
            if request.interval is not None:
                results += [base + end for end in law.shortest_interval(request.interval)]
        return [r[: len(rows)].cpu().numpy() for r in results]

    def _log_mean(self, law: CountLaw, base: Tensor, counts: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
        """Log-means of the `wanted` entries, `base` and what is born on top, in cells that keep their other counts.

        Each modality has its own depth. Entries that were `counted` and those that are missing each add up to their own
        expected sum: no counts are moved from the ones to the others.
        """
        parts = (v.split(self.group_sizes, dim=1) for v in (base, counts * ~wanted, wanted, counted))
        estimates = []
        for born, seen, others, own, known in zip(law.split(self.group_sizes), *parts, strict=True):
            total = (others + (seen + born.mean) * own).sum(1, keepdim=True)
            scale = _REFERENCE_DEPTH / total.clamp(min=1e-6)
            some = [part for part in (own & known, own & ~known) if part.any()]
            estimates.append(sum((log_mean(born, scale, part, seen) for part in some), torch.zeros_like(seen)))
        return torch.cat(estimates, dim=1)

    def _filled(self, values: np.ndarray | Tensor) -> Tensor:
        """Rows of a tile, filled up with zeros to its size."""
        full = torch.as_tensor(values)
        return torch.cat([full, full.new_zeros(self.tile - len(full), *full.shape[1:])]).to(self.device)

    def _context(
        self, rows: NDArray[np.intp], counts: NDArray[np.float32], missing: NDArray[np.bool_]
    ) -> tuple[Context, Tensor]:
        hidden = self._filled(missing)
        known = ~hidden
        context = Context(
            counts=self._filled(counts),
            known=known,
            noised=hidden,
            categories=self._filled(self.cells.categories[rows]),
            continuous=self._filled(self.cells.continuous[rows]),
        )
        return context, self._filled(self.cells.keys[rows])


def _of_rows(callback: Callable[[SamplerState], None], n_obs: int, state: SamplerState) -> None:
    """Show a callback the state of the first rows, without those that fill up a tile."""
    mean, shape = state.intensity.mean[:n_obs], state.intensity.shape
    intensity = Intensity(mean, None if shape is None else shape[:n_obs])
    callback(replace(state, x=state.x[:n_obs], intensity=intensity))


def _summarise(law: CountLaw, request: Request, keys: Tensor) -> list[Tensor]:
    """What the request wants of a predictive law: one matrix, or one per sample."""
    if request.output == "mean":
        return [law.mean]
    if request.output == "median":
        return [law.quantile(torch.full_like(law.mean, 0.5))]
    draw = law.quantile if request.output == "sample" else partial(_rate_quantile, law)
    n_vars = law.mean.shape[1]
    return [draw(RowGenerator(request.seed, keys, stream).uniform(n_vars)) for stream in request.streams()]


def _rate_quantile(law: CountLaw, u: Tensor) -> Tensor:
    """Quantiles of the rate of which a count is Poisson: gamma, or the mean itself where the head knows no shape."""
    if law.shape is None:
        return law.mean
    shape, mean, at = (v.cpu().double().numpy() for v in (law.shape, law.mean, u))
    return torch.as_tensor(special.gammaincinv(shape, at) * mean / shape).to(u)
