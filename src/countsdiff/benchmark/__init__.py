"""Benchmarks: methods predict counts that are known, each in a process of its own."""

from typing import TYPE_CHECKING

from countsdiff.lazy import attach

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

# the process that measures a method's memory imports this package, too: it loads nothing but what it uses
__getattr__, __dir__ = attach(__name__, __all__, _HOMES)
