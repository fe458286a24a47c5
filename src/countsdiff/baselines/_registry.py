"""The baselines by name, which needs all of their modules."""

from ._alra import ALRA
from ._base import Imputer
from ._forest_diffusion import ForestDiffusion
from ._gain import GAIN
from ._gaussian_diffusion import GaussianDiffusion
from ._knn import KNNSmoothing
from ._magic import MAGIC
from ._means import GeneMean, LabelMean, SizeFactorMean
from ._nb_autoencoder import NBAutoencoder
from ._remdm import ReMDM
from ._scvi import SCVI

_ALL: tuple[Imputer, ...] = (
    GeneMean(),
    SizeFactorMean(),
    LabelMean(),
    KNNSmoothing(),
    MAGIC("sqrt"),
    MAGIC("log"),
    MAGIC("none"),
    ALRA(),
    SCVI(),
    NBAutoencoder(),
    ReMDM(),
    GaussianDiffusion(),
    GAIN(),
    ForestDiffusion(),
)
BASELINES: dict[str, Imputer] = {baseline.name: baseline for baseline in _ALL}


def get_baseline(name: str) -> Imputer:
    """Return the baseline of that name with its default settings.

    Parameters
    ----------
    name
        A key of ``BASELINES``.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; choose one of {list(BASELINES)}")
    return BASELINES[name]
