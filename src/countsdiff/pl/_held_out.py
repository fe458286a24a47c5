"""Predictions beside counts that were held out."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from numpy.typing import NDArray
from scipy import stats

from countsdiff.core import CountLaw
from countsdiff.counts import check_boolean

from .canvas import BLUE, GREY, ORANGE, dense, finish, start


def recovery(
    adata: AnnData,
    truth: Any,
    *,
    imputed: Any = "imputed",
    hidden: Any = "hidden",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw imputed values of held-out entries against their true counts, as a density.

    Parameters
    ----------
    adata
        Data with entries hidden from the model.
    truth
        Counts before hiding: name of a layer, or a matrix ``(n_obs, n_vars)``.
    imputed, hidden
        Imputed counts, and True where an entry was hidden; each a layer's name or a matrix.
    ax, show, save
        Axes to draw on; whether to show (default: unless axes or a file are given); file to write.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If no entry was hidden, or a shape does not fit.
    """
    x, y = _entries(adata, hidden, truth, imputed)
    axes = start(ax, (4.6, 3.8))
    top = np.log1p(max(x.max(), np.quantile(y, 0.9999), 1.0) * 1.1)
    # a count fills its unit of the axis: jittered, or points would stand in columns
    jittered = np.log1p(np.maximum(x + np.random.default_rng(0).uniform(-0.5, 0.5, len(x)), 0.0))
    drawn = axes.hexbin(
        jittered, np.log1p(y), gridsize=55, extent=(0, top, 0, top), norm=LogNorm(), cmap="viridis", linewidths=0.1
    )
    axes.figure.colorbar(drawn, ax=axes, label="entries", shrink=0.85)
    axes.plot([0, top], [0, top], color=ORANGE, lw=1.2, ls="--")
    ticks = [t for t in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if np.log1p(t) <= top]
    names = [str(t) for t in ticks]
    axes.set_xticks(np.log1p(ticks), names)
    axes.set_yticks(np.log1p(ticks), names)
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="held-out count", ylabel="imputed")
    r = np.corrcoef(np.log1p(x), np.log1p(y))[0, 1]
    axes.set_title(f"{len(x):,} held-out entries, r = {r:.2f} (log scale)", fontsize=10)
    return finish(axes, ax, show, save)


def calibration(
    adata: AnnData,
    truth: Any,
    *,
    imputed: Any = "imputed",
    hidden: Any = "hidden",
    n_bins: int = 20,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw mean held-out counts against predicted means, entries being binned by their prediction.

    A calibrated model is on the diagonal. Bars are 95 % intervals of the mean counts.

    Parameters
    ----------
    adata, truth, imputed, hidden, ax, show, save
        As for :func:`recovery`; `imputed` are predicted means.
    n_bins
        Number of bins, equally wide on the logarithmic axis.

    Returns
    -------
    matplotlib.axes.Axes
    """
    x, y = _entries(adata, hidden, truth, imputed)
    bins, members = _bins(y, n_bins)
    predicted = np.array([y[m].mean() for m in members])
    observed = np.array([x[m].mean() for m in members])
    error = np.array([1.96 * x[m].std() / len(m) ** 0.5 for m in members])
    axes = start(ax)
    limits = np.array([predicted.min() / 1.5, predicted.max() * 1.5])
    axes.plot(limits, limits, color=GREY, lw=1, ls="--", label="calibrated")
    low = np.minimum(error, observed * 0.999)  # a logarithmic axis has no zero
    axes.errorbar(predicted, observed, [low, error], fmt="o", color=BLUE, ms=4, lw=1, label="held-out entries")
    axes.set(xscale="log", yscale="log", xlim=limits, xlabel="predicted mean", ylabel="mean held-out count")
    positive = observed[observed > 0]
    axes.set_ylim(np.min(positive / 1.5, initial=limits[0]), np.max(positive * 1.5, initial=limits[1]))
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.set_title(f"all entries: {y.mean():.3g} predicted, {x.mean():.3g} counted", fontsize=10)
    return finish(axes, ax, show, save)


def coverage(
    adata: AnnData,
    truth: Any,
    *,
    interval: float,
    imputed: str = "imputed",
    hidden: Any = "hidden",
    n_bins: int = 20,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw how many held-out counts lie within their intervals, entries being binned by their prediction.

    Intervals end at whole counts, so for small counts even calibrated intervals cover more than their nominal level.
    For comparison, the band shows the coverage under a Poisson distribution with the predicted mean.

    Parameters
    ----------
    adata, truth, hidden, n_bins, ax, show, save
        As for :func:`calibration`.
    interval
        Coverage that ``model.impute(interval=...)`` was asked for.
    imputed
        Name of the layer with predicted means; the ends of the intervals are in ``{imputed}_lower`` and
        ``{imputed}_upper``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the intervals were made for another coverage.
    """
    if not 0.0 < interval < 1.0:
        raise ValueError(f"interval is a coverage between 0 and 1, such as 0.9; got {interval}.")
    made = adata.uns.get("countsdiff", {}).get(imputed, {}).get("interval")
    if made is not None and made != interval:
        raise ValueError(f"The intervals of {imputed!r} were made with interval={made:g}; got interval={interval:g}.")
    x, y, low, high = _entries(adata, hidden, truth, imputed, f"{imputed}_lower", f"{imputed}_upper")
    inside = (low <= x) & (x <= high)
    bins, members = _bins(y, n_bins)
    share = np.array([inside[m].mean() for m in members])
    error = 1.96 * np.sqrt(share * (1 - share) / [len(m) for m in members])
    lower, upper = CountLaw(torch.as_tensor(bins)).shortest_interval(interval)
    exact = stats.poisson.cdf(upper, bins) - stats.poisson.cdf(lower - 1, bins)
    axes = start(ax)
    axes.fill_between(bins, interval, exact, color=GREY, alpha=0.25, lw=0, label="whole counts (Poisson)")
    axes.axhline(interval, color=GREY, lw=1, ls="--", label=f"nominal, {interval:.0%}")
    axes.errorbar(bins, share, error, fmt="o", color=BLUE, ms=4, lw=1, label="held-out entries")
    axes.set(xscale="log", xlabel="predicted mean", ylabel="share within the interval")
    axes.set_ylim(min(share.min() - 0.05, interval - 0.15), 1.01)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    axes.set_title(f"{inside.mean():.1%} of all held-out entries", fontsize=10)
    return finish(axes, ax, show, save)


def _entries(adata: AnnData, hidden: Any, *matrices: Any) -> list[NDArray[np.float64]]:
    """Hidden entries of each matrix, those that are NaN in one of them left out."""
    marks = dense(adata, hidden)
    check_boolean(marks, "hidden")
    at = marks > 0
    if not at.any():
        raise ValueError("No entry is hidden: `hidden` has to be True where counts were held out.")
    entries = [dense(adata, matrix)[at] for matrix in matrices]
    known = np.isfinite(entries).all(axis=0)  # some may not have been imputed
    if not known.any():
        raise ValueError("No hidden entry has both a true count and an imputed one.")
    if not entries[0][known].any():
        warnings.warn("All held-out counts are 0: are these the counts after hiding, not the true ones?", stacklevel=3)
    return [values[known] for values in entries]


def _bins(y: NDArray[np.float64], n_bins: int) -> tuple[NDArray[np.float64], list[NDArray[np.intp]]]:
    """Mean prediction and entries of bins that are equally wide in log y, those of fewer than ten entries left out."""
    edges = np.geomspace(max(y.min(), 1e-4), max(y.max(), 1e-3) * (1 + 1e-9), n_bins + 1)
    bin_of = np.digitize(y, edges[1:-1])
    members = [m for k in range(n_bins) if len(m := np.flatnonzero(bin_of == k)) >= 10]
    if not members:
        raise ValueError(f"No bin of {n_bins} has ten of the {len(y)} entries; hide more, or take fewer bins.")
    return np.array([y[m].mean() for m in members]), members
