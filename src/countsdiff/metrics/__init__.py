"""Metrics: arrays in, numbers out."""

from .bootstrap import bootstrap_interval
from .calibration import interval_coverage, pit_ks, randomised_pit, variance_ratio, zero_fraction_error
from .correlation import correlation_error, mean_absolute_correlation
from .denoising import log_normalise, open_problems_mse, open_problems_poisson
from .distribution import energy_distance, frechet_distance, mmd, sliced_wasserstein, wasserstein_1d
from .point import bias, evaluate, mae, poisson_loss, r2, relative_bias, rmse, spearman_per_cell
from .pooling import PooledEstimate, pool_imputations

__all__ = [
    "PooledEstimate",
    "bias",
    "bootstrap_interval",
    "correlation_error",
    "energy_distance",
    "evaluate",
    "frechet_distance",
    "interval_coverage",
    "log_normalise",
    "mae",
    "mean_absolute_correlation",
    "mmd",
    "open_problems_mse",
    "open_problems_poisson",
    "pit_ks",
    "poisson_loss",
    "pool_imputations",
    "r2",
    "randomised_pit",
    "relative_bias",
    "rmse",
    "sliced_wasserstein",
    "spearman_per_cell",
    "variance_ratio",
    "wasserstein_1d",
    "zero_fraction_error",
]
