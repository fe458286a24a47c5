"""Plots: what imputation did to the data, and how far to trust it."""

from ._cells import gene_gene, uncertainty, zeros_filled
from ._held_out import calibration, coverage, recovery
from ._process import history, schedules, trajectory

__all__ = [
    "calibration",
    "coverage",
    "gene_gene",
    "history",
    "recovery",
    "schedules",
    "trajectory",
    "uncertainty",
    "zeros_filled",
]
