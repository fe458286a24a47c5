"""Benchmarks: methods answer questions whose answers are known, each in a process of its own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._data import Dataset, prepare
    from ._denoising import MolecularCV, Null
    from ._imputation import Imputation
    from ._latents import Latents
    from ._masks import MASKS
    from ._methods import CountsDiff, choose
    from ._report import write_report
    from ._results import Results
    from ._run import run

_HOMES = {
    "CountsDiff": "_methods",
    "Dataset": "_data",
    "Imputation": "_imputation",
    "Latents": "_latents",
    "MASKS": "_masks",
    "MolecularCV": "_denoising",
    "Null": "_denoising",
    "Results": "_results",
    "choose": "_methods",
    "prepare": "_data",
    "run": "_run",
    "write_report": "_report",
}
__all__ = [
    "MASKS",
    "CountsDiff",
    "Dataset",
    "Imputation",
    "Latents",
    "MolecularCV",
    "Null",
    "Results",
    "choose",
    "prepare",
    "run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # the process that measures a method's memory imports this package, too: it loads nothing but what it uses
    if name in _HOMES:
        return getattr(import_module(f"countsdiff.benchmark.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'countsdiff.benchmark' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
