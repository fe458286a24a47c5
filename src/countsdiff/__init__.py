"""countsdiff: impute, denoise and generate single-cell counts with a diffusion model on the natural numbers."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    # scvi-tools takes seconds to import: nothing is loaded before it is used
    if name == "CountsDiffImputer":
        return import_module("countsdiff.model").CountsDiffImputer
    if name in __all__:
        return import_module(f"countsdiff.{name}")
    raise AttributeError(f"module 'countsdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
