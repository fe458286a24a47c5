"""CountsDiff behind the protocol of its rivals, and who takes part in which task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from countsdiff.baselines import Imputer

from .interfaces import Counts, Task

if TYPE_CHECKING:
    from anndata import AnnData

_NEED_LABELS = {"label_mean", "countsdiff+labels"}


@dataclass(frozen=True)
class CountsDiff(Imputer):
    """:class:`~countsdiff.CountsDiffImputer` as a :class:`countsdiff.baselines.Imputer`.

    Parameters
    ----------
    name
        Name in the table of results.
    with_labels
        Whether the model is told the labels.
    output
        Estimate of denoising; imputation uses the mean.
    depth
        Depth, relative to the cell's own, at which a denoised estimate is best. Means do not depend on it; the
        result is brought back to the cell's own depth.
    max_steps
        Length of training; None for what the number of cells suggests.
    """

    name: str = "countsdiff"
    with_labels: bool = False
    output: Literal["mean", "log_mean", "sample"] = "mean"
    depth: float = 1.0
    max_steps: int | None = None

    def fit(
        self,
        counts: Counts,
        missing: NDArray[np.bool_] | None,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> "_FittedCountsDiff":
        """Train on the observed entries; see :class:`countsdiff.baselines.Imputer`."""
        from countsdiff import CountsDiffImputer

        if self.with_labels and labels is None:
            raise ValueError(f"{self.name} needs labels, one for each of the {len(counts)} cells; got none")
        adata = _as_adata(counts, missing, labels if self.with_labels else None)
        CountsDiffImputer.setup_anndata(
            adata, missing_layer="missing", labels_key="label" if self.with_labels else None
        )
        model = CountsDiffImputer(adata, seed=seed)
        model.train(self.max_steps, seed=seed, enable_progress_bar=False)
        return _FittedCountsDiff(model, self)


@dataclass(frozen=True)
class _FittedCountsDiff:
    model: Any  # CountsDiffImputer
    settings: CountsDiff

    def impute(self, counts: Counts, missing: NDArray[np.bool_] | None, *, labels: ArrayLike | None = None) -> Counts:
        model, adata = self._for(counts, missing, labels)
        if missing is not None:
            return model.impute(adata, inplace=False)
        depth = self.settings.depth
        return model.denoise(adata, output=self.settings.output, depth=depth, inplace=False) / depth

    def impute_whole(self, counts: Counts, missing: NDArray[np.bool_], *, labels: ArrayLike | None = None) -> Counts:
        """Whole counts of the smallest absolute error."""
        model, adata = self._for(counts, missing, labels)
        return model.impute(adata, output="median", inplace=False)

    def sample(
        self,
        counts: Counts,
        missing: NDArray[np.bool_] | None,
        n_samples: int,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> Counts:
        model, adata = self._for(counts, missing, labels)
        predict = model.denoise if missing is None else model.impute
        draws = predict(adata, output="sample", n_samples=n_samples, seed=seed, inplace=False)
        return np.reshape(draws, (n_samples, *counts.shape))

    def _for(
        self, counts: Counts, missing: NDArray[np.bool_] | None, labels: ArrayLike | None
    ) -> "tuple[Any, AnnData]":
        """Cells as the model takes them, and the model: taken to them if there are labels it was not trained on."""
        adata = _as_adata(counts, missing, labels if self.settings.with_labels else None)
        if "label" not in adata.obs or adata.obs["label"].isin(self.model.adata.obs["label"].unique()).all():
            return self.model, adata
        return self.model.load_query_data(adata, self.model, adapt_means=False), adata


def _as_adata(counts: Counts, missing: NDArray[np.bool_] | None, labels: ArrayLike | None) -> "AnnData":
    from anndata import AnnData
    from scipy import sparse

    adata = AnnData(sparse.csr_matrix(counts))
    missing = np.zeros(counts.shape, dtype=bool) if missing is None else missing
    adata.layers["missing"] = sparse.csr_matrix(missing)
    if labels is not None:
        adata.obs["label"] = np.asarray(labels, dtype=str)
    return adata


@dataclass(frozen=True)
class Untrained(Imputer):
    """The counts as they are, or a multiple of them: what a denoiser has to be better than.

    Parameters
    ----------
    name
        Name in the table of results.
    factor
        1 for the counts, 0 for none at all.
    """

    name: str = "none"
    factor: float = 1.0

    def fit(
        self,
        counts: Counts,
        missing: NDArray[np.bool_] | None,
        *,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> "_FittedUntrained":
        """Learn nothing."""
        return _FittedUntrained(self.factor)


@dataclass(frozen=True)
class _FittedUntrained:
    factor: float

    def impute(self, counts: Counts, missing: NDArray[np.bool_] | None, *, labels: ArrayLike | None = None) -> Counts:
        return self.factor * counts


def imputers() -> dict[str, Imputer]:
    """Return the methods that impute, by name."""
    return _beside_rivals((CountsDiff(), CountsDiff("countsdiff+labels", with_labels=True)))


def denoisers(depth: float) -> dict[str, Imputer]:
    """Return the methods that denoise for a replicate at `depth`, by name; the first one does nothing."""
    ours: tuple[Imputer, ...] = (
        Untrained(),
        CountsDiff("countsdiff mean", depth=depth),
        CountsDiff("countsdiff log_mean", output="log_mean", depth=depth),
        CountsDiff("countsdiff sample", output="sample", depth=depth),
    )
    return _beside_rivals(ours)


def _beside_rivals(ours: tuple[Imputer, ...]) -> dict[str, Imputer]:
    from countsdiff.baselines import BASELINES  # here, as a method's process needs none of them

    return {method.name: method for method in ours} | BASELINES


def choose(task: Task, names: Sequence[str] | None, *, with_labels: bool) -> list[Imputer]:
    """Return the methods of a task by name, in the task's order; by default all that can do with what is given.

    A task's reference, the counts as they are, always takes part.

    Parameters
    ----------
    task
        The task.
    names
        Names of methods, or None.
    with_labels
        Whether the data have labels.

    Raises
    ------
    ValueError
        If there is no such method, or it needs labels that are not there.
    """
    methods = task.methods()
    if names is None:
        names = [name for name in methods if with_labels or name not in _NEED_LABELS]
    for name in names:
        if name not in methods:
            raise ValueError(f"there is no method {name!r} for the task {task.name}; choose among {', '.join(methods)}")
        if name in _NEED_LABELS and not with_labels:
            raise ValueError(f"the method {name} needs labels; name the column that has them")
    return [method for name, method in methods.items() if name in names or name == "none"]
