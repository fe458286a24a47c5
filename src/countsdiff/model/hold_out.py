"""Entries that are kept from training, so that they can judge it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.counts import CellReader, dense_rows

SHARE = 0.05
NOT_TRAINED_ON = "_countsdiff_not_trained_on"  # layer for them, where data have none for missing entries
_MAX_ENTRIES = 40_000_000  # of the cells that are scored, which the rivals want dense
_MIN_CELLS = 500
_MIN_HELD_OUT = 20
_STREAM = 0x1E1D  # of the random numbers that choose them


@dataclass(frozen=True)
class ScoredCells:
    """Cells with all their counts, those held out for the report included.

    Parameters
    ----------
    reader
        Counts as the model gets them.
    held_out
        Boolean matrix of the entries to score, genes in the order of the data.
    """

    reader: CellReader
    held_out: Any

    def __call__(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return counts (NaN where a held-out count is absent), missing entries, and held-out ones, not missing."""
        held = self.held(rows)
        counts, absent = replace(self.reader, missing=None)(rows)
        blank = self.reader(rows)[1] & ~held
        counts[blank] = 0.0
        counts[held & absent] = np.nan
        return counts, blank, held

    def cells(self) -> NDArray[np.intp]:
        """Cells with an entry held out."""
        return np.concatenate([rows[self.held(rows).any(1)] for rows in self.reader.chunks()])

    def held(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Entries to score of some cells, genes in the order of the model."""
        return dense_rows(self.held_out, rows, self.reader.columns).astype(bool)

    def blocks(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """Counts and missing entries of all cells."""
        for rows in self.reader.chunks():
            yield self(rows)[:2]


def scored_rows(reader: CellReader, among: Callable[[], NDArray[np.intp]] | None = None) -> NDArray[np.intp]:
    """All cells; where they are too many to be looked at in full, evenly spaced ones, `among` those that it returns."""
    most = max(_MAX_ENTRIES // reader.counts.shape[1], _MIN_CELLS)
    rows = np.arange(reader.n_obs)
    if len(rows) > most and among is not None:
        rows = among()
    return rows[:: math.ceil(len(rows) / most) or 1]


def hold_out(reader: CellReader, seed: int = 0) -> sparse.csr_matrix:
    """Choose a twentieth of the observed entries of the cells to score, zeros included.

    Returns
    -------
    scipy.sparse.csr_matrix
        Boolean, shape ``(n_obs, n_vars)``, genes in the order of the data.

    Raises
    ------
    ValueError
        If there are too few to judge anything by.
    """
    # a stream of its own: from that of a mask of the same seed it would choose what the mask has hidden already
    rng = np.random.default_rng([seed, _STREAM])
    places = []
    for rows in reader.chunks(scored_rows(reader)):
        missing = reader(rows)[1]
        cells, genes = np.nonzero(reader.restore((rng.random(missing.shape) < SHARE) & ~missing))
        places.append((rows[cells], genes))
    cells, genes = (np.concatenate(part) for part in zip(*places, strict=True))
    if len(cells) < _MIN_HELD_OUT:
        raise ValueError(
            f"A twentieth of the observed entries are {len(cells)}, too few to judge anything by; leave the report out."
        )
    return sparse.csr_matrix((np.ones(len(cells), dtype=bool), (cells, genes)), shape=reader.counts.shape)


def check_known(counts: NDArray, held: NDArray, adata: AnnData, rows: NDArray[np.intp]) -> None:
    """Check the held-out entries of some cells: there have to be some, and their counts have to be there.

    Raises
    ------
    ValueError
        If fewer than twenty entries are held out, a held-out count is NaN, or all of them are zero.
    """
    if held.sum() < _MIN_HELD_OUT:
        raise ValueError(
            f"{held.sum()} entries are held out, too few to judge anything by: held_out has to be True where entries "
            "are to be scored."
        )
    if np.isnan(counts).any():
        cell = adata.obs_names[rows[np.argwhere(np.isnan(counts))[0][0]]]
        raise ValueError(f"The count of a held-out entry of cell {cell!r} is NaN: give data that still have it.")
    if not counts[held].any():
        raise ValueError(
            "All held-out entries are zero: were they set to 0 when they were hidden (pp.hide_entries does so)? "
            "Give the data that still have their counts, adata=..."
        )
