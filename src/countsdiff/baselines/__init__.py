"""Rivals to compare with, all behind one protocol: :class:`Imputer`."""

from typing import TYPE_CHECKING

from countsdiff.lazy import attach

from ._base import FittedImputer, FittedRounder, FittedSampler, Imputer

if TYPE_CHECKING:
    from ._alra import ALRA
    from ._forest_diffusion import ForestDiffusion
    from ._gain import GAIN
    from ._gaussian_diffusion import GaussianDiffusion
    from ._knn import KNNSmoothing
    from ._magic import MAGIC
    from ._means import GeneMean, LabelMean, SizeFactorMean
    from ._nb_autoencoder import NBAutoencoder
    from ._registry import BASELINES, get_baseline
    from ._remdm import ReMDM
    from ._scvi import SCVI

_HOMES = {
    "ALRA": "_alra",
    "BASELINES": "_registry",
    "ForestDiffusion": "_forest_diffusion",
    "GAIN": "_gain",
    "GaussianDiffusion": "_gaussian_diffusion",
    "GeneMean": "_means",
    "KNNSmoothing": "_knn",
    "LabelMean": "_means",
    "MAGIC": "_magic",
    "NBAutoencoder": "_nb_autoencoder",
    "ReMDM": "_remdm",
    "SCVI": "_scvi",
    "SizeFactorMean": "_means",
    "get_baseline": "_registry",
}
__all__ = [
    "ALRA",
    "BASELINES",
    "GAIN",
    "MAGIC",
    "SCVI",
    "FittedImputer",
    "FittedRounder",
    "FittedSampler",
    "ForestDiffusion",
    "GaussianDiffusion",
    "GeneMean",
    "Imputer",
    "KNNSmoothing",
    "LabelMean",
    "NBAutoencoder",
    "ReMDM",
    "SizeFactorMean",
    "get_baseline",
]

# a benchmark runs every method in a process of its own, which is not to wait for what other methods need
__getattr__, __dir__ = attach(__name__, __all__, _HOMES)
