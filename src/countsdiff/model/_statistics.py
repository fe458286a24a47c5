"""What the denoiser needs to know of a data set before it is trained: one mean and one dispersion per gene."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from countsdiff.counts import CellReader

_MAX_CELLS = 20_000  # more cells than this tell nothing new about means
_MAX_ENTRIES = 200_000_000  # fewer cells of very many variables: at least a thousand


@dataclass(frozen=True)
class GeneStatistics:
    """Mean count at size factor 1, and shape of the gamma law of the rate over cells; float32, shape ``(n_vars,)``."""

    mean: torch.Tensor
    dispersion: torch.Tensor


def gene_statistics(reader: CellReader, group_sizes: Sequence[int]) -> GeneStatistics:
    """Statistics of every group of variables, whose cells have a size factor of their own, one after the other."""
    ends = np.cumsum(group_sizes)
    columns = [np.arange(end - n, end) for end, n in zip(ends, group_sizes, strict=True)]
    parts = [_group_statistics(reader if len(ends) == 1 else replace(reader, columns=c), len(c)) for c in columns]
    return GeneStatistics(torch.cat([p.mean for p in parts]), torch.cat([p.dispersion for p in parts]))


def _group_statistics(reader: CellReader, n_vars: int) -> GeneStatistics:
    """Estimate means and dispersions by moments from the observed entries of (at most 20,000 evenly spread) cells.

    A gene that is never observed, or never detected, gets a small mean instead of zero, so that its logarithm exists.
    """
    n_cells = min(reader.n_obs, _MAX_CELLS, max(_MAX_ENTRIES // reader.counts.shape[1], 1_000))
    rows = reader.spread(n_cells)
    total, n_observed = np.zeros(n_vars), np.zeros(n_vars)
    for chunk in reader.chunks(rows):
        counts, missing = reader(chunk)
        total += counts.sum(0, dtype=np.float64)
        n_observed += (~missing).sum(0)
    raw_mean = total / np.maximum(n_observed, 1)
    exposure = np.zeros(n_vars)
    for chunk in reader.chunks(rows):
        _, observed, size = _read(reader, chunk, raw_mean)
        exposure += observed.T @ size
    mean = np.maximum(total / np.maximum(exposure, 1e-6), 0.1 / max(len(rows), 1000))
    explained, excess = np.zeros(n_vars), np.zeros(n_vars)
    for chunk in reader.chunks(rows):
        counts, observed, size = _read(reader, chunk, raw_mean)
        expected = size[:, None] * mean * observed
        explained += np.square(expected).sum(0)
        excess += (np.square(counts - expected) - expected).sum(0)
    # variance = mean + mean² / shape, the excess over the Poisson variance being shared out by least squares
    dispersion = np.clip(explained / np.maximum(excess, 1e-3 * explained + 1e-12), 0.05, 20.0)
    return GeneStatistics(*(torch.as_tensor(v, dtype=torch.float32) for v in (mean, dispersion)))


def _read(
    reader: CellReader, rows: NDArray[np.intp], raw_mean: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Counts, observed entries (0 or 1) and size factors of some cells."""
    counts, missing = reader(rows)
    observed = (~missing).astype(np.float64)
    size = (counts.sum(1) + 0.1) / (observed @ raw_mean + 0.1)
    return counts, observed, size
