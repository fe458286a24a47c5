from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from countsdiff import metrics
from countsdiff.baselines import Imputer
from countsdiff.metrics.point import spearman_of_cells

from ._data import Dataset
from ._latents import Latents
from ._masks import MASKS
from ._methods import imputers
from .interfaces import Cells, Counts, Prediction, Query, Score, Split

Design = Literal["paper", "in_place"]

_SHARE_TEST = 0.2
_POINT_METRICS = ("rmse", "mae", "bias", "r2", "poisson_loss", "spearman_per_cell")
_MEDIAN_ROWS = 2000  # cells among which the median distance is found


@dataclass(frozen=True)
class Imputation:
    """Hide counts and have them predicted.

    Hidden entries are scored by the mean, by one sample and by the mean of five samples. How well one sample keeps the
    law of the cells is scored on whole cells, with the observed entries in place: distances of samples and the error
    of gene-gene correlations on ``log1p`` of cells brought to 10,000 counts, and the Fréchet distance of scVI's
    latents (scFID).

    Parameters
    ----------
    latents
        Latents for scFID.
    masks
        Names of what to hide, keys of ``MASKS``.
    design
        ``"paper"``: methods are fitted once, to 80 % of the cells, which are complete, and impute the others under
        each mask. ``"in_place"``: entries of all cells are hidden, and the same matrix is fitted and imputed.
    """

    latents: Latents
    masks: tuple[str, ...] = tuple(MASKS)
    design: Design = "paper"
    n_draws: ClassVar[int] = 5  # whose mean is scored

    def __post_init__(self) -> None:
        if self.design not in get_args(Design):
            raise ValueError(f"design is {self.design!r}; choose one of {', '.join(get_args(Design))}")
        if unknown := [mask for mask in self.masks if mask not in MASKS]:
            raise ValueError(f"there is no mask {unknown[0]!r}; choose among {', '.join(MASKS)}")

    @property
    def name(self) -> str:
        """Name in the table of results: the two designs are two tasks there."""
        return "imputation" if self.design == "paper" else "imputation in_place"

    def methods(self) -> dict[str, Imputer]:
        """Return the methods that impute, by name."""
        return imputers()

    def splits(self, data: Dataset, masks: list[str], seed: int) -> Iterator[Split]:
        """Yield one split with all masks, or in place one for each mask, as there is another matrix to fit."""
        train, test = self._split(len(data.counts), seed)
        self.latents.of(data, train, seed)  # before any method works: a model that does not fit is found out at once
        if self.design == "in_place":
            for mask in masks:
                query = _hide(data, test, mask, seed)
                yield Split(query.cells, (query,))
        else:
            seen = Cells(data.counts[train], None, None if data.labels is None else data.labels[train])
            yield Split(seen, tuple(_hide(data, test, mask, seed) for mask in masks))

    def score(self, data: Dataset, seed: int, query: Query, prediction: Prediction) -> Iterator[Score]:
        """Score hidden entries by every estimate, and whole cells by one sample."""
        hidden = query.cells.missing
        assert hidden is not None, "every query of this task hides something"
        for name, counts, note in prediction.estimates(self.n_draws):
            for metric, value in _point_scores(query.truth, counts, hidden):
                yield Score(name, metric, value, note)
            if name == "1 sample":
                cells = np.where(hidden, counts, query.truth)
                for metric, value in self._sample_scores(data, seed, query.truth, cells):
                    yield Score(name, metric, value, note)

    def _sample_scores(self, data: Dataset, seed: int, truth: Counts, cells: Counts) -> Iterator[tuple[str, float]]:
        x, y = metrics.log_normalise(truth), metrics.log_normalise(cells)
        # of the truth alone: one bandwidth for all methods
        bandwidth = float(np.median(pdist(x[:: -(-len(x) // _MEDIAN_ROWS)])))
        # where half of the cells are alike there is no distance to go by
        yield "mmd", metrics.mmd(x, y, bandwidth=bandwidth) if bandwidth > 0.0 else float("nan")
        yield "energy_distance", metrics.energy_distance(x, y)
        yield "sliced_wasserstein", metrics.sliced_wasserstein(x, y)
        yield "correlation_error", metrics.correlation_error(x, y)
        train, _ = self._split(len(data.counts), seed)
        embed = self.latents.of(data, train, seed)
        yield "scfid", metrics.frechet_distance(embed(truth), embed(cells))

    def _split(self, n_obs: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Cells that are complete in training (scFID's, in place), and cells with hidden entries."""
        if self.design == "in_place":
            return np.arange(n_obs), np.arange(n_obs)
        order = np.random.default_rng(seed).permutation(n_obs)
        n_test = round(_SHARE_TEST * n_obs)
        return np.sort(order[n_test:]), np.sort(order[:n_test])


def _hide(data: Dataset, rows: NDArray[np.intp], mask: str, seed: int) -> Query:
    counts = data.counts[rows]
    missing = MASKS[mask](counts, data.left_out[rows], seed)
    labels = None if data.labels is None else data.labels[rows]
    return Query(mask, Cells.hide(counts, missing, labels), counts)


def _point_scores(truth: Counts, counts: Counts, hidden: NDArray[np.bool_]) -> Iterator[tuple[str, float]]:
    scores = metrics.evaluate(truth, counts, hidden)
    yield from ((metric, scores[metric]) for metric in _POINT_METRICS)
    # a bootstrap over cells: a cell's squared error, and its rank correlation, are numbers of their own
    squares = np.where(hidden, (counts.astype(np.float64) - truth) ** 2, 0).sum(axis=1)
    correlations = spearman_of_cells(truth, counts, hidden)
    intervals = {
        "rmse": metrics.bootstrap_interval(
            lambda squares, n: float(np.sqrt(squares.sum() / n.sum())), squares, hidden.sum(axis=1)
        ),
        "spearman_per_cell": metrics.bootstrap_interval(
            lambda values: float(values.mean()), correlations if correlations.size else np.array([np.nan])
        ),
    }
    for metric, (low, high) in intervals.items():
        yield f"{metric}_low", low
        yield f"{metric}_high", high
