"""What the imputation task hides, by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from countsdiff import pp

from .interfaces import Counts

Mask = Callable[[Counts, NDArray[np.float64], int], NDArray[np.bool_]]


def _mcar(counts: Counts, left_out: NDArray[np.float64], seed: int, *, share: float) -> NDArray[np.bool_]:
    return pp.mcar(counts.shape, share, seed=seed)


def _mar(counts: Counts, left_out: NDArray[np.float64], seed: int, *, share: float) -> NDArray[np.bool_]:
    if not left_out.any():
        raise ValueError(
            "the mask mar25 goes by the depth of cells over genes that were left out, but all were chosen; "
            "choose fewer genes or leave the mask out"
        )
    return pp.mar(left_out, counts.shape[1], share, seed=seed)


def _mar_block(counts: Counts, left_out: NDArray[np.float64], seed: int, *, share: float) -> NDArray[np.bool_]:
    return pp.mar_block(counts.shape, share, seed=seed)


def _mnar(
    counts: Counts, left_out: NDArray[np.float64], seed: int, *, share: float, kind: Literal["high", "low"]
) -> NDArray[np.bool_]:
    return pp.mnar(counts, share, kind=kind, seed=seed)


#: (counts, counts over genes left out, seed) → True where hidden, by name; the number is the percentage hidden.
#: What mar25 depends on is not shown to the methods; it makes no difference where hundreds of genes tell the depth, but
#: with a hundred shallow ones means are biased by up to a tenth, for all methods alike.
MASKS: dict[str, Mask] = {
    **{f"mcar{percent}": partial(_mcar, share=percent / 100) for percent in (10, 25, 50, 75)},
    "mar25": partial(_mar, share=0.25),
    "mar_block25": partial(_mar_block, share=0.25),
    "mnar_high25": partial(_mnar, share=0.25, kind="high"),
    "mnar_low25": partial(_mnar, share=0.25, kind="low"),
}
