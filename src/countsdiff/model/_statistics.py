"""What the denoiser needs to know of a data set before it is trained: means, dispersions and factors of genes."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from countsdiff.core.factors import FactorModel
from countsdiff.core.interfaces import shrunken_log_ratio
from countsdiff.core.shrinkage import dispersion_index, posterior_means
from countsdiff.counts import CellReader

_HALF_RELIABLE = 6.0  # counts of a gene; 3 and 12 are as good
_N_FACTORS = 32
_MOST_FOR_FACTORS = 4_000  # variables, and twice as many cells: more tell little new of so few numbers
_MAX_CELLS = 20_000  # more cells than this tell nothing new about means
_CELLS_TO_MISS = 20  # that should show a gene in a batch: where none does, it was hardly measured
_MAX_ENTRIES = 200_000_000  # fewer cells of very many variables: at least a thousand


@dataclass(frozen=True)
class GeneStatistics:
    """What is known of every gene.

    Attributes
    ----------
    mean, dispersion
        Mean count at size factor 1, and shape of the gamma law of the rate over cells; float32, shape ``(n_vars,)``.
    factors
        Factor model of the log ratios, see :class:`~countsdiff.core.interfaces.Evidence`.
    shrinkage, reliability
        Factors of the mean and of what a network says of a gene, of which few counts tell; see
        :class:`~countsdiff.core.calibration.Calibration`.
    """

    mean: torch.Tensor
    dispersion: torch.Tensor
    factors: FactorModel
    shrinkage: torch.Tensor
    reliability: torch.Tensor

    @classmethod
    def unknown(cls, n_vars: int) -> "GeneStatistics":
        """Statistics of the right shapes, that others are about to replace."""
        n_seen = min(n_vars, _MOST_FOR_FACTORS)
        ones = torch.ones(n_vars)
        return cls(ones, ones.clone(), FactorModel.empty(n_seen, _N_FACTORS), ones.clone(), ones.clone())


def gene_statistics(reader: CellReader, group_sizes: Sequence[int]) -> GeneStatistics:
    """Statistics of every group of variables, whose cells have a size factor of their own, and factors of all."""
    ends = np.cumsum(group_sizes)
    columns = [np.arange(end - n, end) for end, n in zip(ends, group_sizes, strict=True)]
    readers = [reader] if len(ends) == 1 else [replace(reader, columns=c) for c in columns]
    moments = [_moments(part, len(c)) for part, c in zip(readers, columns, strict=True)]
    mean, dispersion, shrinkage, reliability = (torch.cat(values) for values in zip(*moments, strict=True))
    # those with most counts; in their own order, which the sums of a product follow
    variables = mean.argsort(descending=True, stable=True)[:_MOST_FOR_FACTORS].sort().values
    blocks = _log_ratios(readers, [(m, d) for m, d, *_ in moments], variables)
    factors = FactorModel.fit(variables, _N_FACTORS, blocks, torch.Generator().manual_seed(0))
    return GeneStatistics(mean, dispersion, factors, shrinkage, reliability)


def _log_ratios(
    readers: list[CellReader], moments: list[tuple[torch.Tensor, torch.Tensor]], variables: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Log ratios of evenly spread cells, and which entries were observed (0 or 1), of some variables."""
    for chunk in readers[0].chunks(_spread(readers[0], 2 * _MOST_FOR_FACTORS)):
        ratios, seen = [], []
        for reader, (mean, dispersion) in zip(readers, moments, strict=True):
            counts, observed, size = (torch.as_tensor(v).float() for v in _read(reader, chunk, mean.double().numpy()))
            ratios.append(shrunken_log_ratio(counts, size.unsqueeze(1) * mean * observed, dispersion))
            seen.append(observed)
        yield torch.cat(ratios, dim=1)[:, variables], torch.cat(seen, dim=1)[:, variables]


def _moments(reader: CellReader, n_vars: int) -> tuple[torch.Tensor, ...]:
    """Estimate means and dispersions by moments from the observed entries of (at most 20,000 evenly spread) cells.

    And shrinkage and reliability. A gene that is never observed, or never detected, gets a small mean instead of zero,
    so that its logarithm exists.
    """
    rows = _spread(reader, _MAX_CELLS)
    totals, exposures = np.zeros((2, 2, n_vars))  # of every other cell
    n_observed = np.zeros(n_vars)
    for chunk in reader.chunks(rows):
        counts, missing = reader(chunk)
        for half in range(2):
            totals[half] += counts[half::2].sum(0, dtype=np.float64)
        n_observed += (~missing).sum(0)
    if not n_observed.any():
        warnings.warn("No entry is observed: all are marked as missing, by True or NaN. Inverted?", stacklevel=2)
    elif not totals.any():
        warnings.warn("No observed count is above zero: there is nothing to learn. Another layer?", stacklevel=2)
    total = totals.sum(0)
    raw_mean = total / np.maximum(n_observed, 1)
    for chunk in reader.chunks(rows):
        _, observed, size = _read(reader, chunk, raw_mean)
        for half in range(2):
            exposures[half] += observed[half::2].T @ size[half::2]
    exposure = exposures.sum(0)
    mean = np.maximum(total / np.maximum(exposure, 1e-6), 0.1 / max(len(rows), 1000))
    explained, excess = np.zeros(n_vars), np.zeros(n_vars)
    for chunk in reader.chunks(rows):
        counts, observed, size = _read(reader, chunk, raw_mean)
        expected = size[:, None] * mean * observed
        explained += np.square(expected).sum(0)
        excess += (np.square(counts - expected) - expected).sum(0)
    # variance = mean + mean² / shape, the excess over the Poisson variance being shared out by least squares
    dispersion = np.clip(explained / np.maximum(excess, 1e-3 * explained + 1e-12), 0.05, 20.0)
    index = dispersion_index(torch.as_tensor(totals), torch.as_tensor(exposures))
    expected = posterior_means(torch.as_tensor(total), torch.as_tensor(exposure), index).numpy()
    shrinkage = np.where(exposure > 0.0, expected / mean, 1.0)
    reliability = total / (total + _HALF_RELIABLE)
    return tuple(torch.as_tensor(v, dtype=torch.float32) for v in (mean, dispersion, shrinkage, reliability))


def absent_genes(
    reader: CellReader, batches: NDArray[np.intp], group_sizes: Sequence[int]
) -> dict[int, NDArray[np.intp]]:
    """Genes that no cell of a batch shows, by the batch's code, where other batches let expect twenty that do.

    That is what tables look like that were joined with zeros for the genes that one of them did not have. Twenty genes
    of a modality, or a tenth of few, pass without a word: donors lack those of the other sex.
    """
    rows = _spread(reader, _MAX_CELLS)
    n_shown, n_observed = np.zeros((2, batches.max() + 1, reader.counts.shape[1]), dtype=np.float32)
    for chunk in reader.chunks(rows):
        counts, missing = reader(chunk)
        for batch in np.unique(batches[chunk]):
            own = batches[chunk] == batch
            n_shown[batch] += (counts[own] > 0).sum(0)
            n_observed[batch] += (~missing[own]).sum(0)
    group = np.repeat(np.arange(len(group_sizes)), group_sizes)
    enough = np.minimum(20, 0.1 * np.asarray(group_sizes))
    found, n_shown_in_all, n_in_all = {}, n_shown.sum(0), n_observed.sum(0)
    for batch, (shown, n_cells) in enumerate(zip(n_shown, n_observed, strict=True)):
        share = n_shown_in_all / np.maximum(n_in_all - n_cells, 1.0)  # of the others, where none is in this one
        genes = np.flatnonzero((shown == 0.0) & (n_cells * share >= _CELLS_TO_MISS))
        many = np.bincount(group[genes], minlength=len(group_sizes)) > enough
        if many.any():
            found[batch] = genes[many[group[genes]]]
    return found


def _spread(reader: CellReader, most: int) -> NDArray[np.intp]:
    """About so many evenly spread cells, fewer of very many variables."""
    return reader.spread(min(reader.n_obs, most, max(_MAX_ENTRIES // reader.counts.shape[1], 1_000)))


def _read(
    reader: CellReader, rows: NDArray[np.intp], raw_mean: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Counts, observed entries (0 or 1) and size factors of some cells."""
    counts, missing = reader(rows)
    observed = (~missing).astype(np.float64)
    size = (counts.sum(1) + 0.1) / (observed @ raw_mean + 0.1)
    return counts, observed, size
