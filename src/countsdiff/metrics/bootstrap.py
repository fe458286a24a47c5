"""How sure a number is, given that the cells are a sample."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from countsdiff.matrix import to_dense


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: Any,
    n_resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of cells.

    Cells are drawn with replacement, the same ones from all arrays, so that pairs of truth and prediction stay pairs.
    A resample repeats cells: for a statistic of pairs of cells (:func:`mmd`, :func:`energy_distance`) the interval is
    biased by terms of order ``1 / n_obs``.

    Parameters
    ----------
    statistic
        Called as ``statistic(*arrays)`` with the drawn rows.
    *arrays
        Arrays or row-indexable sparse matrices of shapes ``(n_obs, ...)``, one row per cell.
    n_resamples
        Number of draws.
    level
        Share of the statistic's draws within the interval, in (0, 1).
    seed
        Seed of ``numpy.random.default_rng``.

    Returns
    -------
    low, high
        Quantiles ``(1 - level) / 2`` and ``(1 + level) / 2`` of the statistic; NaN where it was NaN for a draw.

    Raises
    ------
    ValueError
        If `level` or `n_resamples` is out of range, or the arrays do not have the same number of rows, at least one.

    References
    ----------
    Efron & Tibshirani (1993), An introduction to the bootstrap, chapter 13.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it is a share of draws and must lie between 0 and 1, say 0.95")
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}; draw at least once, better 200 times")
    data = [array if sparse.issparse(array) else to_dense(array) for array in arrays]
    rows = [array.shape[0] for array in data]
    if len(set(rows)) != 1 or rows[0] == 0:
        raise ValueError(f"need arrays with one row for each cell, the same cells in all of them; got {rows} rows")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n_resamples):
        drawn = rng.integers(rows[0], size=rows[0])
        draws.append(statistic(*(array[drawn] for array in data)))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
