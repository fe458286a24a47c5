"""What a report says, as values: computed first, judged and drawn later."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

OURS = "countsdiff"


@dataclass(frozen=True)
class DataSummary:
    """The counts, over their observed entries; those held out for the report are observed.

    Attributes
    ----------
    n_cells, n_genes, n_missing
        Size, and number of missing entries.
    median_depth
        Median number of molecules per cell.
    depth_variation
        Standard deviation over mean of the molecules per cell.
    share_zeros
        Share of the observed entries that are zero.
    share_without_ones
        Of the cells with counts, the share in which no count is 1.
    """

    n_cells: int
    n_genes: int
    n_missing: int
    median_depth: float
    depth_variation: float
    share_zeros: float
    share_without_ones: float


@dataclass(frozen=True)
class HeldOut:
    """Entries that were held out, and what the model predicts there; arrays of shape ``(n_entries,)``.

    Attributes
    ----------
    rows, columns, shape
        Where the entries are in the matrix of the scored cells.
    truth
        Counts.
    mean, std, lower, upper
        Mean, standard deviation and ends of the shortest interval of the predictive distribution.
    interval
        Coverage that the interval was asked for.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    shape: tuple[int, int]
    truth: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    interval: float

    @property
    def n_cells(self) -> int:
        """Number of cells with held-out entries."""
        return len(np.unique(self.rows))

    def matrix(self, values: NDArray) -> sparse.csr_matrix:
        """Put one value per entry where the entries are; zeros stay stored."""
        return sparse.csr_matrix((values, (self.rows, self.columns)), shape=self.shape)


@dataclass(frozen=True)
class Score:
    """How close a method came to the held-out counts; see :mod:`countsdiff.metrics` for each."""

    method: str
    r2: float
    rmse: float
    poisson_loss: float
    spearman_per_cell: float


@dataclass(frozen=True)
class Calibration:
    """Whether the model is as sure as it should be.

    Attributes
    ----------
    interval
        Coverage that the intervals were asked for.
    coverage
        Share of the held-out counts within their intervals.
    promised
        Share that calibrated predictions would have within: more than asked for, since intervals end at whole counts.
    pit_ks
        See :func:`~countsdiff.metrics.pit_ks`.
    pit
        Share of the randomised PIT in each of twenty bins of equal width.
    relative_bias
        Sum of the predictions over that of the counts, minus 1.
    zeros_predicted, zeros_counted
        Share of zeros.
    """

    interval: float
    coverage: float
    promised: float
    pit_ks: float
    pit: tuple[float, ...]
    relative_bias: float
    zeros_predicted: float
    zeros_counted: float


@dataclass(frozen=True)
class LabelFinding:
    """What imputation does to the cells of one label.

    Attributes
    ----------
    n_cells
        Number of the label's cells that were looked at.
    n_zeros, n_filled
        Observed zeros, and those of them that imputation raises to half a count or more.
    counted, predicted
        Sums over the label's held-out entries.
    """

    label: str
    n_cells: int
    n_zeros: int
    n_filled: int
    counted: float
    predicted: float

    @property
    def share_filled(self) -> float:
        """Share of the zeros that is filled."""
        return self.n_filled / max(self.n_zeros, 1)


@dataclass(frozen=True)
class Invented:
    """Mean absolute correlation between genes in one output, made of the counts as they are and of permuted ones."""

    output: str
    own: float
    permuted: float


@dataclass(frozen=True)
class NullCheck:
    """Correlation between genes where there is none.

    Attributes
    ----------
    n_cells, n_genes
        Cells that were permuted, and genes whose pairs were correlated.
    chance
        Mean absolute correlation of independent genes in that many cells.
    outputs
        The counts themselves, and every output offered.
    """

    n_cells: int
    n_genes: int
    chance: float
    outputs: tuple[Invented, ...]


@dataclass(frozen=True)
class Findings:
    """Everything that is in a report.

    Attributes
    ----------
    data
        The counts.
    held_out, scores, calibration
        Predictions of the held-out entries; the model first among the scores.
    labels
        One for each label; one in all where there are no labels.
    null
        Correlation invented where there is none.
    checked
        Whether the training data were at hand, to see that no scored entry was trained on.
    settings
        Parameters, versions and times, by name.
    """

    data: DataSummary
    held_out: HeldOut
    scores: tuple[Score, ...]
    calibration: Calibration
    labels: tuple[LabelFinding, ...]
    null: NullCheck
    checked: bool
    settings: Mapping[str, str]

    @property
    def ours(self) -> Score:
        """The model's score."""
        return self.scores[0]
