"""What passes between a task, the process in which a method works, and the table of results."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from countsdiff.baselines import Imputer

    from ._data import Dataset

Counts = NDArray[np.float32]


@dataclass(frozen=True)
class Cells:
    """Cells as a method sees them.

    Parameters
    ----------
    counts
        Shape ``(n_obs, n_vars)``, 0 at missing entries: what is hidden never reaches the method.
    missing
        Boolean of the same shape, True where a count is not known; None if all are known.
    labels
        One label per cell, shape ``(n_obs,)``, or None.
    """

    counts: Counts
    missing: NDArray[np.bool_] | None
    labels: NDArray[np.str_] | None

    @classmethod
    def hide(cls, counts: Counts, missing: NDArray[np.bool_], labels: NDArray[np.str_] | None) -> "Cells":
        """Return the cells without their missing entries."""
        return cls(np.where(missing, np.float32(0), counts), missing, labels)


@dataclass(frozen=True)
class Query:
    """Cells to predict.

    Parameters
    ----------
    mask
        Name of what was hidden.
    cells
        What the method is shown.
    truth
        What its prediction is compared with, shape ``(n_obs, n_vars)``; never shown.
    """

    mask: str
    cells: Cells
    truth: Counts


@dataclass(frozen=True)
class Split:
    """What one process works through: it fits a method once, which then predicts every query.

    Parameters
    ----------
    seen
        Cells to fit.
    queries
        At least one.
    """

    seen: Cells
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Job:
    """What a method's process is told: nothing that is hidden.

    Parameters
    ----------
    method
        A :class:`countsdiff.baselines.Imputer`.
    seen, queries
        Cells to fit, and cells to predict.
    n_draws
        Number of draws wanted.
    seed
        Seed of fitting and of draws.
    """

    method: Any
    seen: Cells
    queries: tuple[Cells, ...]
    n_draws: int
    seed: int


class Estimate(NamedTuple):
    """Predicted counts ``(n_obs, n_vars)``, under the name by which results call them."""

    name: str
    counts: Counts
    note: str


@dataclass(frozen=True)
class Prediction:
    """What a method made of a query, and at what cost.

    Parameters
    ----------
    mean
        Predicted counts, shape ``(n_obs, n_vars)``.
    draws
        Sampled counts, shape ``(n_draws, n_obs, n_vars)``; None if none were asked for or the method cannot sample.
    whole
        Predicted whole numbers, shape ``(n_obs, n_vars)``; None if none were asked for or the method has no more to say
        than its mean.
    fit_seconds, impute_seconds, sample_seconds
        Wall time of fitting (once for all queries of a split), of the mean and of all draws; imports included.
    peak_memory_mb
        Largest resident memory of the process up to here, in MiB, libraries and data included.
    """

    mean: Counts
    draws: Counts | None
    whole: Counts | None
    fit_seconds: float
    impute_seconds: float
    sample_seconds: float
    peak_memory_mb: float

    def estimates(self, n_draws: int) -> Iterator[Estimate]:
        """Yield the mean, whole counts, one draw, and the mean of `n_draws` draws.

        Whole counts are the method's own, or its mean rounded. Without draws the mean stands in, and says so.
        """
        note = "" if self.draws is not None else "cannot sample: its mean stands in"
        yield Estimate("mean", self.mean, "")
        yield Estimate("whole counts", np.round(self.mean) if self.whole is None else self.whole, "")
        yield Estimate("1 sample", self.mean if self.draws is None else self.draws[0], note)
        yield Estimate(f"{n_draws} samples", self.mean if self.draws is None else self.draws.mean(axis=0), note)


@dataclass(frozen=True)
class Failure:
    """A query without a prediction.

    Parameters
    ----------
    kind
        ``"absent"`` if something the method needs is not installed, else ``"failed"``.
    reason
        One line.
    """

    kind: Literal["absent", "failed"]
    reason: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Return the failure that an exception means."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return cls("absent" if isinstance(error, ImportError) else "failed", reason)


class Score(NamedTuple):
    """A number in the table of results; `estimate` is empty where it concerns the method, not a prediction."""

    estimate: str
    metric: str
    value: float
    note: str = ""


class Task(Protocol):
    """What is asked of a data set, and how predictions are scored."""

    @property
    def name(self) -> str:
        """Name in the table of results."""

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the queries."""

    @property
    def n_draws(self) -> int:
        """Number of draws wanted from methods that can sample."""

    def methods(self) -> dict[str, "Imputer"]:
        """Return the methods that can take part, by name."""

    def splits(self, data: "Dataset", masks: list[str], seed: int) -> Iterator[Split]:
        """Yield splits with the queries `masks`, in this order."""

    def score(self, data: "Dataset", seed: int, query: Query, prediction: Prediction) -> Iterator[Score]:
        """Score the prediction of a query."""
