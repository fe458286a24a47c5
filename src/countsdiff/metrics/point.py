"""How far one prediction per entry is from the truth, over the entries that were hidden."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from countsdiff.matrix import check_is_matrix, to_dense

_EPSILON = 1e-3  # keeps the logarithm of a predicted zero finite


def check_entries(**entries: ArrayLike) -> list[NDArray[np.float64]]:
    """Return the named arrays as float64, or say which one does not fit.

    Raises
    ------
    ValueError
        If the arrays are not one-dimensional, not of one length, or empty.
    """
    arrays = {name: to_dense(values, np.float64) for name, values in entries.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        raise ValueError(f"need one-dimensional arrays of equal length, the scored entries only; got shapes {shapes}")
    if 0 in next(iter(shapes.values())):
        raise ValueError("there is nothing to score: the arrays are empty; hide at least one entry")
    return list(arrays.values())


def rmse(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Root mean squared error, in counts.

    Parameters
    ----------
    truth, prediction
        Counts and predicted counts of the scored entries, both of shape ``(n_entries,)``.
    """
    x, y = check_entries(truth=truth, prediction=prediction)
    return float(np.sqrt(np.mean((y - x) ** 2)))


def mae(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Mean absolute error, in counts.

    Parameters
    ----------
    truth, prediction
        Counts and predicted counts of the scored entries, both of shape ``(n_entries,)``.
    """
    x, y = check_entries(truth=truth, prediction=prediction)
    return float(np.mean(np.abs(y - x)))


def bias(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Mean prediction minus mean truth, in counts.

    Parameters
    ----------
    truth, prediction
        Counts and predicted counts of the scored entries, both of shape ``(n_entries,)``.
    """
    x, y = check_entries(truth=truth, prediction=prediction)
    return float(y.mean() - x.mean())


def relative_bias(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Sum of the predictions over the sum of the truth, minus 1; NaN where all true counts are 0.

    Parameters
    ----------
    truth, prediction
        Counts and predicted counts of the scored entries, both of shape ``(n_entries,)``.
    """
    x, y = check_entries(truth=truth, prediction=prediction)
    return float(y.sum() / x.sum() - 1) if x.any() else float("nan")


def r2(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Share of the variance of the truth that is explained: ``1 - SS_res / SS_tot``, SS_tot of the truth.

    Negative where the prediction does worse than the mean of the truth; NaN where the truth is constant.

    Parameters
    ----------
    truth, prediction
        Counts and predicted counts of the scored entries, both of shape ``(n_entries,)``.
    """
    x, y = check_entries(truth=truth, prediction=prediction)
    total = np.sum((x - x.mean()) ** 2)
    return float(1 - np.sum((x - y) ** 2) / total) if np.ptp(x) > 0 else float("nan")


def poisson_loss(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Mean of ``y' - x log y'``, ``y' = prediction + 1e-3``: the Poisson loss up to a constant of the truth.

    It is least at the conditional mean, and unlike the squared error not ruled by the few largest counts.

    Parameters
    ----------
    truth, prediction
        Counts and predicted counts of the scored entries, both of shape ``(n_entries,)``.

    Raises
    ------
    ValueError
        If a prediction is negative, which no Poisson mean is.
    """
    x, y = check_entries(truth=truth, prediction=prediction)
    if y.min() < 0:
        raise ValueError(f"prediction holds {y.min():g}, but a Poisson mean is not negative; clip predictions at 0")
    y = y + _EPSILON
    return float(np.mean(y - x * np.log(y)))


def spearman_per_cell(truth: Any, prediction: Any, hidden: Any) -> float:
    """Mean over cells of Spearman's rank correlation over the cell's hidden entries.

    Parameters
    ----------
    truth, prediction
        Matrices of shape ``(n_obs, n_vars)``, dense or scipy sparse.
    hidden
        Boolean matrix of the same shape, dense or scipy sparse: the entries to score.

    Returns
    -------
    float
        Cells with fewer than two hidden entries, or whose true counts there are all alike, have nothing to rank and
        are left out; NaN where no cell is left. A prediction that is constant over the others ranks nothing, and
        counts as 0: left out, a method would gain by predicting zeros wherever it is at a loss.

    Raises
    ------
    ValueError
        If the shapes differ, `hidden` is not boolean, or nothing is hidden.
    """
    rows, x, y = _hidden_entries(truth, prediction, hidden)
    return _spearman(rows, x, y)


def spearman_of_cells(truth: Any, prediction: Any, hidden: Any) -> NDArray[np.float64]:
    """Rank correlations that :func:`spearman_per_cell` averages, of the cells whose hidden counts differ."""
    return _correlations(*_hidden_entries(truth, prediction, hidden))


def evaluate(truth: Any, imputed: Any, hidden: Any) -> dict[str, float]:
    """Score an imputed matrix by every point metric of this module.

    Parameters
    ----------
    truth, imputed
        Counts and imputed counts, shape ``(n_obs, n_vars)``, dense or scipy sparse; only hidden entries are
        densified.
    hidden
        Boolean matrix of the same shape, dense or scipy sparse: the entries that were hidden from the
        imputer.

    Returns
    -------
    dict
        ``rmse``, ``mae``, ``bias``, ``relative_bias``, ``r2``, ``poisson_loss`` and ``spearman_per_cell``.

    Raises
    ------
    ValueError
        If the shapes differ, `hidden` is not boolean, nothing is hidden, or an imputed count is negative.

    Examples
    --------
    >>> truth = np.array([[2.0, 0.0], [1.0, 3.0]])
    >>> scores = countsdiff.metrics.evaluate(truth, truth + 1.0, hidden=truth > 0)
    >>> scores["rmse"], scores["bias"]
    (1.0, 1.0)
    """
    rows, x, y = _hidden_entries(truth, imputed, hidden)
    scores = {metric.__name__: metric(x, y) for metric in (rmse, mae, bias, relative_bias, r2, poisson_loss)}
    return scores | {"spearman_per_cell": _spearman(rows, x, y)}


def _hidden_entries(
    truth: Any, prediction: Any, hidden: Any
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return row, truth and prediction of every hidden entry."""
    check_is_matrix(truth=truth, prediction=prediction, hidden=hidden)
    _check_names(truth=truth, prediction=prediction, hidden=hidden)
    truth, prediction, hidden = (m if sparse.issparse(m) else to_dense(m) for m in (truth, prediction, hidden))
    if not truth.shape == prediction.shape == hidden.shape or truth.ndim != 2:
        raise ValueError(
            "truth, prediction and hidden must be matrices of one shape (n_obs, n_vars); "
            f"got {truth.shape}, {prediction.shape} and {hidden.shape}"
        )
    if hidden.dtype != bool:
        raise ValueError(f"hidden must be boolean, True where an entry is scored; got dtype {hidden.dtype}")
    rows, cols = hidden.nonzero()
    x, y = check_entries(truth=_take(truth, rows, cols), prediction=_take(prediction, rows, cols))
    return rows, x, y


def _check_names(**matrices: Any) -> None:
    """Check that data frames have their cells and genes in one order: entries are compared by position."""
    frames = {name: matrix for name, matrix in matrices.items() if isinstance(matrix, pd.DataFrame)}
    first = next(iter(frames), "")
    for name, frame in frames.items():
        if not (frame.index.equals(frames[first].index) and frame.columns.equals(frames[first].columns)):
            raise ValueError(f"{first} and {name} have other cells or genes, or another order; reindex one of them.")


def _take(matrix: Any, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[Any]:
    if not rows.size:
        return np.empty(0)  # of a sparse matrix no entries would be a matrix
    return np.asarray((matrix.tocsr() if sparse.issparse(matrix) else matrix)[rows, cols]).ravel()


def _spearman(rows: NDArray[np.intp], x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if np.isnan(x).any() or np.isnan(y).any():
        return float("nan")  # which has no rank
    found = _correlations(rows, x, y)
    return float(found.mean()) if found.size else float("nan")


def _correlations(rows: NDArray[np.intp], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of the ranks within each row whose `x` varies, all rows at once; 0 where `y` does not."""
    n_rows = int(rows.max()) + 1
    size = np.maximum(np.bincount(rows, minlength=n_rows), 1)

    def centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        ranks = _ranks(rows, values)
        return ranks - (np.bincount(rows, ranks, n_rows) / size)[rows]

    a, b = centred_ranks(x), centred_ranks(y)
    covariance, own = np.bincount(rows, a * b, n_rows), np.bincount(rows, a * a, n_rows)
    scale = np.sqrt(own * np.bincount(rows, b * b, n_rows))
    scored = own > 0
    found: NDArray[np.float64] = np.divide(covariance, scale, out=np.zeros(n_rows), where=scale > 0)[scored]
    return found


def _ranks(rows: NDArray[np.intp], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average ranks within each row, each row up to a shift of its own (which centring removes)."""
    order = np.lexsort((values, rows))
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (np.diff(rows[order]) != 0) | (np.diff(values[order]) != 0)
    tie = np.cumsum(starts) - 1
    position = np.arange(len(order), dtype=np.float64)
    ranks = np.empty_like(position)
    ranks[order] = (np.bincount(tie, position) / np.bincount(tie))[tie]
    return ranks
