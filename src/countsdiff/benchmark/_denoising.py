from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from countsdiff import metrics, pp
from countsdiff.baselines import Imputer

from ._data import Dataset
from ._methods import Untrained, denoisers
from .interfaces import Cells, Counts, Prediction, Query, Score, Split

_SHARE = 0.9
_DEPTH = (1 - _SHARE) / _SHARE
_TARGET = 1e4
_ROWS = 1024  # cells estimated at a time


@dataclass(frozen=True)
class MolecularCV:
    """Predict a tenth of the molecules from the others: the denoising task of Open Problems.

    Every entry's molecules are split by a binomial draw. Scores are the mean squared error and the "Poisson loss" as
    Open Problems defines them, the latter with its arguments exchanged
    (:func:`countsdiff.metrics.open_problems_poisson`), and the Poisson loss that is meant. Their squared error is least
    for means of logarithms at the depth of what was held out, which only one of the methods says by itself; so it is
    scored once more for what Poisson laws of a method's means make of them.

    References
    ----------
    Batson, Royer & Webber (2019), Molecular cross-validation for single-cell RNA-seq, bioRxiv 786269.
    """

    name: ClassVar[str] = "molecular_cv"
    masks: ClassVar[tuple[str, ...]] = ("molecules10",)
    n_draws: ClassVar[int] = 0

    def methods(self) -> dict[str, Imputer]:
        """Return the methods that denoise, by name; the first is the counts as they are."""
        zeros = Untrained("zeros", factor=0.0)
        return denoisers(_DEPTH) | {zeros.name: zeros}

    def splits(self, data: Dataset, masks: list[str], seed: int) -> Iterator[Split]:
        """Yield one split: the molecules kept are fitted and denoised."""
        train, test = pp.molecular_split(data.counts, _SHARE, seed=seed)
        detected = train.any(axis=0)
        seen = Cells(train[:, detected], None, data.labels)
        yield Split(seen, (Query(masks[0], seen, test[:, detected]),))

    def score(self, data: Dataset, seed: int, query: Query, prediction: Prediction) -> Iterator[Score]:
        """Score the mean against the molecules held out."""
        test, train = query.truth, query.cells.counts
        yield Score("mean", "open_problems_mse", metrics.open_problems_mse(test, prediction.mean))
        logs = _poisson_log_mean(prediction.mean * _DEPTH)
        yield Score("Poisson log mean", "open_problems_mse", metrics.open_problems_mse(test, logs))
        # they scale by what was drawn, not by what was to be
        theirs = prediction.mean * (test.sum(dtype=np.float64) / train.sum(dtype=np.float64))
        yield Score("mean", "open_problems_poisson", metrics.open_problems_poisson(test, theirs))
        yield Score("mean", "poisson_loss", metrics.poisson_loss(test.ravel(), (prediction.mean * _DEPTH).ravel()))


def _poisson_log_mean(mean: Counts) -> Counts:
    """Values of the smallest squared error after normalisation and log1p, if counts are Poisson with these means."""
    import torch

    from countsdiff.core.count_law import CountLaw
    from countsdiff.core.estimators import log_mean

    blocks = []
    for block in torch.as_tensor(mean, dtype=torch.float32).split(_ROWS):
        scale = _TARGET / block.sum(1, keepdim=True).clamp(min=1e-6)
        blocks.append(log_mean(CountLaw(block), scale, torch.ones_like(block, dtype=torch.bool)))
    return torch.cat(blocks).numpy()


@dataclass(frozen=True)
class Null:
    """Denoise counts without any structure: each gene permuted over the cells on its own.

    No two genes have anything to do with each other, so what the mean absolute correlation of the denoised cells shows
    beyond that of the permuted counts (method "none") is invented.

    References
    ----------
    Andrews & Hemberg (2018), False signals induced by single-cell imputation, F1000Research 7, 1740.
    """

    name: ClassVar[str] = "null"
    masks: ClassVar[tuple[str, ...]] = ("permuted",)
    n_draws: ClassVar[int] = 0

    def methods(self) -> dict[str, Imputer]:
        """Return the methods that denoise, by name; the first is the counts as they are."""
        return denoisers(1.0)

    def splits(self, data: Dataset, masks: list[str], seed: int) -> Iterator[Split]:
        """Yield one split: the permuted counts are fitted and denoised."""
        permuted = np.random.default_rng(seed).permuted(data.counts, axis=0)
        seen = Cells(permuted, None, data.labels)
        yield Split(seen, (Query(masks[0], seen, permuted),))

    def score(self, data: Dataset, seed: int, query: Query, prediction: Prediction) -> Iterator[Score]:
        """Score the correlations of the mean, on ``log1p`` of cells that were each, or on average, brought to 10,000.

        Permuted cells all have one expected depth, so differences between their sums are noise of strong genes.
        Dividing by these sums correlates all other genes, the more the smoother they are: an artefact of normalisation,
        not of the method.
        """
        mean = prediction.mean.astype(np.float64)
        scales = {
            "mean_absolute_correlation": metrics.log_normalise(mean),
            "mean_absolute_correlation_unnormalised": np.log1p(mean * (_TARGET * len(mean) / max(mean.sum(), 1.0))),
        }
        for metric, values in scales.items():
            yield Score("mean", metric, metrics.mean_absolute_correlation(values))
