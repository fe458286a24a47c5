"""How a model was trained, and how it draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes

from countsdiff.core import SamplerState, SurvivalSchedule, get_schedule

from .canvas import BLUE, ORANGE, finish, start

if TYPE_CHECKING:
    from countsdiff import CountsDiffImputer


def history(
    model: "CountsDiffImputer",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw the losses of training and validation.

    They are different losses: training scores entries at every noise level, validation the imputation of complete
    cells. The mark is where validation was best.

    Parameters
    ----------
    model
        A trained model.
    ax, show, save
        As for :func:`~countsdiff.pl.recovery`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the model is not trained, or its losses went elsewhere.
    """
    losses = model.history or {}
    if "train_loss" not in losses:
        if model.is_trained:
            raise ValueError("The losses of this training went to a logger of your own: model.trainer.logger has them.")
        raise ValueError("The model has no history: train it first.")
    axes = start(ax, (5.0, 3.4))
    training = losses["train_loss"].iloc[:, 0].astype(float)
    axes.plot(training.index, training, color=BLUE, lw=1.2, label="training")
    axes.set(xlabel="epoch (at most 100 steps)", ylabel="training loss")
    lines = list(axes.lines)
    if "validation_loss" in losses:
        validation = losses["validation_loss"].iloc[:, 0].astype(float).dropna()
        right = axes.twinx()
        right.spines[["top", "left"]].set_visible(False)
        lines += right.plot(validation.index, validation, color=ORANGE, lw=1.2, label="validation")
        right.plot(validation.idxmin(), validation.min(), "o", color=ORANGE, ms=5)
        right.set_ylabel("validation loss")
    axes.legend(handles=lines[:2], frameon=False, fontsize=9, loc="upper right")
    return finish(axes, ax, show, save)


def schedules(
    names: str | Sequence[str | SurvivalSchedule] = ("cosine", "linear", "logit_linear", "blackout", "jump"),
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw survival probabilities over time.

    Parameters
    ----------
    names
        Schedules, by name or as objects.
    ax, show, save
        As for :func:`~countsdiff.pl.recovery`.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = start(ax, (4.6, 3.4))
    t = torch.linspace(0.0, 1.0, 401, dtype=torch.float64)
    for i, name in enumerate([names] if isinstance(names, str) else names):
        label = name if isinstance(name, str) else type(name).__name__
        axes.plot(t, get_schedule(name)(t).p, lw=1.5, ls="--" if i % 2 else "-", label=label)  # some are alike
    axes.set(xlabel="time t", ylabel="survival probability p(t)", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(frameon=False, fontsize=9)
    return finish(axes, ax, show, save)


def trajectory(
    states: Sequence[SamplerState],
    *,
    cell: int = 0,
    gene_names: Sequence[str] | None = None,
    n_genes: int = 25,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes:
    """Draw how a cell comes into being: counts of its largest genes, from nothing to the end of the reverse path.

    Parameters
    ----------
    states
        States of all steps, as ``model.generate(..., callback=states.append)`` collects them.
    cell
        Number of the cell.
    gene_names
        Names of the genes. Default: their numbers.
    n_genes
        Number of genes to show.
    ax, show, save
        As for :func:`~countsdiff.pl.recovery`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there are no states, there is no such cell, or there are not as many names as genes.
    """
    path, row = _path_of(cell, states)
    counts: Any = np.stack([state.x[row].cpu().numpy() for state in path], axis=1)
    if gene_names is not None and len(gene_names) != len(counts):
        raise ValueError(f"gene_names are {len(gene_names)}, and there are {len(counts)} genes.")
    largest = np.argsort(-counts[:, -1], kind="stable")[:n_genes]
    edges = np.array([0.0, *(state.p for state in path)])
    axes = start(ax, (5.4, 0.8 + 0.17 * len(largest)))
    drawn = axes.pcolormesh(edges, np.arange(len(largest) + 1), np.log1p(counts[largest]), cmap="viridis")
    bar = axes.figure.colorbar(drawn, ax=axes, label="counts", shrink=0.85)
    ticks = [t for t in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= counts[largest].max()]
    bar.set_ticks(list(np.log1p(ticks)), labels=[str(t) for t in ticks])
    names = largest if gene_names is None else np.asarray(gene_names)[largest]
    axes.set_yticks(np.arange(len(largest)) + 0.5, [str(n) for n in names], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="survival probability p (reverse path: left to right)")
    axes.set_title(f"cell {cell}: {counts[:, -1].sum():,.0f} counts after {len(path)} steps", fontsize=10)
    return finish(axes, ax, show, save)


def _path_of(cell: int, states: Sequence[SamplerState]) -> tuple[list[SamplerState], int]:
    """States of the cells that were drawn together with one, and its row in them."""
    if not states:
        raise ValueError("There are no states: collect them with model.generate(..., callback=states.append).")
    starts = [i for i, state in enumerate(states) if state.step == 0]
    first = 0
    for begin, end in zip(starts, [*starts[1:], len(states)], strict=True):
        n_obs = len(states[begin].x)
        if first <= cell < first + n_obs:
            return list(states[begin:end]), cell - first
        first += n_obs
    raise ValueError(f"The states are of {first} cells, numbered from 0; there is no cell {cell}.")
