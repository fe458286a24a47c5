"""Pictures of a report, as data addresses that need no file beside the page."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from countsdiff import pl
from countsdiff.pl.canvas import BLUE, GREY

from ._findings import Calibration, HeldOut


def pictures(held_out: HeldOut, calibration: Calibration) -> dict[str, str]:
    """Draw held-out entries against their predictions; PNG as ``data:`` addresses, by name."""
    # the plots take any data with a mask: here a column of entries, all of them held out
    column = AnnData(
        held_out.truth[:, None],
        layers={
            "imputed": held_out.mean[:, None],
            "imputed_lower": held_out.lower[:, None],
            "imputed_upper": held_out.upper[:, None],
        },
    )
    everything: dict[str, Any] = {"truth": column.X, "hidden": np.ones(column.shape, dtype=bool)}
    n_bins = int(np.clip(len(held_out.truth) // 50, 1, 20))  # so that one of them is not left out for being too empty
    return {
        "recovery": _draw(lambda ax: pl.recovery(column, ax=ax, **everything)),
        "calibration": _draw(lambda ax: pl.calibration(column, n_bins=n_bins, ax=ax, **everything)),
        "coverage": _draw(
            lambda ax: pl.coverage(column, interval=held_out.interval, n_bins=n_bins, ax=ax, **everything)
        ),
        "pit": _draw(lambda ax: _pit(ax, calibration)),
    }


def _draw(draw: Callable[[Axes], object]) -> str:
    figure = Figure(figsize=(5.0, 3.8), layout="constrained")
    draw(figure.subplots())
    stream = io.BytesIO()
    figure.savefig(stream, dpi=150)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _pit(axes: Axes, calibration: Calibration) -> None:
    n = len(calibration.pit)
    axes.bar(
        (np.arange(n) + 0.5) / n,
        np.array(calibration.pit) * n,
        width=1 / n,
        color=BLUE,
        edgecolor="white",
        linewidth=0.8,
    )
    axes.axhline(1.0, color=GREY, lw=1, ls="--", label="calibrated")
    axes.set(
        xlim=(0, 1),
        ylim=(0, max(1.5, 1.1 * n * max(calibration.pit))),
        xlabel="place of the count in its predicted distribution",
        ylabel="held-out entries, relative to expected",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    axes.set_title(f"largest distance from flat: {calibration.pit_ks:.3f}", fontsize=10)
