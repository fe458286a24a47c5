"""Rivals to compare with, all behind one protocol: :class:`Imputer`."""

from ._base import Imputer
from ._knn import KNNSmoothing
from ._magic import MAGIC
from ._means import GeneMean, LabelMean, SizeFactorMean
from ._scvi import SCVI

_ALL: tuple[Imputer, ...] = (
    GeneMean(),
    SizeFactorMean(),
    LabelMean(),
    KNNSmoothing(),
    MAGIC("sqrt"),
    MAGIC("log"),
    MAGIC("none"),
    SCVI(),
)
BASELINES: dict[str, Imputer] = {baseline.name: baseline for baseline in _ALL}


def get_baseline(name: str) -> Imputer:
    """Return the baseline of that name with its default settings.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; choose one of {list(BASELINES)}")
    return BASELINES[name]


__all__ = [
    "BASELINES",
    "MAGIC",
    "SCVI",
    "GeneMean",
    "Imputer",
    "KNNSmoothing",
    "LabelMean",
    "SizeFactorMean",
    "get_baseline",
]
