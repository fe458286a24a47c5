"""Metrics: arrays in, numbers out."""

from .calibration import interval_coverage, pit_ks, variance_ratio, zero_fraction_error
from .denoising import open_problems_mse
from .point import bias, evaluate, mae, poisson_loss, r2, relative_bias, rmse, spearman_per_cell

__all__ = [
    "bias",
    "evaluate",
    "interval_coverage",
    "mae",
    "open_problems_mse",
    "pit_ks",
    "poisson_loss",
    "r2",
    "relative_bias",
    "rmse",
    "spearman_per_cell",
    "variance_ratio",
    "zero_fraction_error",
]
