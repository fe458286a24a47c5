"""countsdiff: impute, denoise and generate single-cell counts with a diffusion model on the natural numbers."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from countsdiff.lazy import attach

if TYPE_CHECKING:
    from countsdiff import (
        baselines,
        benchmark,
        core,
        datasets,
        distributed,
        image,
        metrics,
        model_files,
        nn,
        pl,
        pp,
        store,
    )
    from countsdiff.model import CountsDiffImputer

__version__ = version("countsdiff")
__all__ = [
    "CountsDiffImputer",
    "baselines",
    "benchmark",
    "core",
    "datasets",
    "distributed",
    "image",
    "metrics",
    "model_files",
    "nn",
    "pl",
    "pp",
    "store",
]

# scvi-tools takes seconds to import
__getattr__, __dir__ = attach(__name__, [*__all__, "__version__"], {"CountsDiffImputer": "model"})
