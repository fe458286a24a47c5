"""How far the laws of two samples of cells are apart: neither cells nor their numbers have to correspond."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.distance import squareform
from sklearn.metrics import pairwise_distances_chunked
from sklearn.metrics.pairwise import euclidean_distances

from countsdiff.matrix import to_dense

from ._samples import check_samples, moments

_MEMORY = 32  # MiB of distances at a time; a function of them takes as much again
_MEDIAN_ROWS = 2000  # cells among which the median distance is found
_COLUMNS = 64  # genes sorted at a time

Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def mmd(x: Any, y: Any, *, bandwidth: float | None = None) -> float:
    """Squared maximum mean discrepancy of a Gaussian kernel, ``k = exp(-d² / (2 bandwidth²))``, without bias.

    Its mean is 0 where both samples come from one law, so single values may well be negative.

    Parameters
    ----------
    x, y
        Samples of shapes ``(n_obs, n_vars)`` and ``(n_obs_y, n_vars)``, dense or scipy sparse.
    bandwidth
        In the units of the data. ``None``: the median distance between the cells of both samples together; of
        n > 2,000 cells only every ``ceil(n / 2000)``-th of each sample is looked at. It moves with `y`: give one
        bandwidth to compare several `y`.

    Returns
    -------
    float
        ``E k(X, X') + E k(Y, Y') - 2 E k(X, Y)`` over pairs of different cells, at most 2.

    Raises
    ------
    ValueError
        If the columns differ, a sample has fewer than two cells or a value that is not finite, or the
        bandwidth (or the median distance) is not positive.

    References
    ----------
    Gretton et al. (2012), A kernel two-sample test, JMLR 13, 723-773, lemma 6; section 8 has the median.
    """
    x, y = _from_first(*check_samples(x=x, y=y))
    width = _median_distance(x, y) if bandwidth is None else bandwidth
    if not 0 < width < np.inf:
        raise ValueError(f"bandwidth is {width:g} (by default the median distance of cells); pass a positive number")
    return _discrepancy(x, y, lambda distance: np.exp(-0.5 * (distance / width) ** 2))


def energy_distance(x: Any, y: Any) -> float:
    """Energy distance ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` of Euclidean distances, without bias.

    Its mean is 0 where both samples come from one law, so single values may well be negative. In the units of the
    data, not their square, and without the root that :func:`scipy.stats.energy_distance` takes.

    Parameters
    ----------
    x, y
        Samples of shapes ``(n_obs, n_vars)`` and ``(n_obs_y, n_vars)``, dense or scipy sparse.

    Raises
    ------
    ValueError
        If the columns differ, or a sample has fewer than two cells or a value that is not finite.

    References
    ----------
    Székely & Rizzo (2013), Energy statistics, J. Stat. Plan. Inference 143, 1249-1272.
    """
    return _discrepancy(*_from_first(*check_samples(x=x, y=y)), np.negative)


def wasserstein_1d(x: Any, y: Any) -> NDArray[np.float64]:
    """Wasserstein distance of order 1 of every column, ``∫ |F⁻¹(u) - G⁻¹(u)| du``, in the units of the data.

    Never negative, hence above 0 on average also for samples of one law.

    Parameters
    ----------
    x, y
        Samples of shapes ``(n_obs, n_vars)`` and ``(n_obs_y, n_vars)``, dense or scipy sparse.

    Returns
    -------
    numpy.ndarray
        Shape ``(n_vars,)``.

    Raises
    ------
    ValueError
        If the columns differ, or a sample has fewer than two cells or a value that is not finite.
    """
    x, y = check_samples(x=x, y=y)
    n, m = x.shape[0], y.shape[0]
    # between multiples of 1/n and of 1/m both quantile functions are constant; counted in 1/(nm) these are integers
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(ends, prepend=0) / (n * m)
    rows_x, rows_y = (ends - 1) // m, (ends - 1) // n
    distances = []
    for start in range(0, x.shape[1], _COLUMNS):
        a, b = (np.sort(to_dense(sample[:, start : start + _COLUMNS]), axis=0) for sample in (x, y))
        distances.append(widths @ np.abs(a[rows_x] - b[rows_y]))
    return np.concatenate(distances)


def sliced_wasserstein(x: Any, y: Any, *, n_projections: int = 128, seed: int = 0) -> float:
    """Wasserstein distance of order 1 of the samples projected to a line, averaged over random lines.

    Parameters
    ----------
    x, y
        Samples of shapes ``(n_obs, n_vars)`` and ``(n_obs_y, n_vars)``, dense or scipy sparse.
    n_projections
        Number of lines, with directions spread evenly over the sphere.
    seed
        Seed of the directions; only values of one seed can be compared.

    Raises
    ------
    ValueError
        If `n_projections` is not positive, the columns differ, or a sample has fewer than two cells or a value
        that is not finite.

    References
    ----------
    Bonneel, Rabin, Peyré & Pfister (2015), Sliced and Radon Wasserstein barycenters of measures, J. Math. Imaging
    Vis. 51, 22-45 (there of order 2).
    """
    if n_projections < 1:
        raise ValueError(f"n_projections is {n_projections}; project on at least one line")
    x, y = check_samples(x=x, y=y)
    directions = np.random.default_rng(seed).standard_normal((x.shape[1], n_projections))
    directions /= np.linalg.norm(directions, axis=0)
    return float(wasserstein_1d(x @ directions, y @ directions).mean())


def frechet_distance(x: Any, y: Any) -> float:
    """Squared Fréchet distance of the Gaussians that have the moments of the samples: FID, whatever the features.

    ``|mean difference|² + tr(C + D - 2 (C D)^½)`` for covariances C and D. With square roots ``C = A'A`` and
    ``D = B'B`` the trace is the least ``|A - Q B|²`` over orthogonal Q, and so it is computed: a sum of squares,
    for which C and D may be singular, as they are for fewer cells than features.

    Parameters
    ----------
    x, y
        Features of shapes ``(n_obs, n_features)`` and ``(n_obs_y, n_features)``, dense or scipy sparse. For scFID the
        latent means of one model, trained on neither sample.

    Returns
    -------
    float
        At least 0, in the squared units of the features; biased upwards by terms of order ``1 / n_obs``, so compare
        values of equal numbers of cells only.

    Raises
    ------
    ValueError
        If the columns differ, or a sample has fewer than two cells or a value that is not finite.

    References
    ----------
    Dowson & Landau (1982), J. Multivar. Anal. 12, 450-455; Bhatia, Jain & Lim (2019), On the Bures-Wasserstein
    distance between positive definite matrices, Expo. Math. 37, 165-191; Heusel et al. (2017), GANs
    trained by a two time-scale update rule, NeurIPS.
    """
    x, y = check_samples(x=x, y=y)
    (mean_x, covariance_x), (mean_y, covariance_y) = moments(x), moments(y)
    root_x, root_y = _square_root(covariance_x), _square_root(covariance_y)
    left, _, right = np.linalg.svd(root_x @ root_y.T)
    return float(np.sum((mean_x - mean_y) ** 2) + np.sum((root_x - left @ right @ root_y) ** 2))


def _square_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return A with ``A'A = covariance``."""
    values, vectors = np.linalg.eigh(covariance)
    rounding = values[-1] * len(values) * np.finfo(np.float64).eps  # what eigenvalues of 0 come out as
    root: NDArray[np.float64] = (vectors * np.sqrt(np.where(values > rounding, values, 0))).T
    return root


def _from_first(x: Any, y: Any) -> tuple[Any, Any]:
    """Both samples with the first cell as origin: distances come from squares, which cancel far away from it.

    Sparse ones stay, most of whose values are the origin already.
    """
    return (x, y) if sparse.issparse(x) or sparse.issparse(y) else (x - x[0], y - x[0])


def _discrepancy(x: Any, y: Any, kernel: Kernel) -> float:
    return _mean_over_pairs(kernel, x) + _mean_over_pairs(kernel, y) - 2 * _mean_over_pairs(kernel, x, y)


def _mean_over_pairs(kernel: Kernel, x: Any, y: Any = None) -> float:
    """Mean kernel of cells of x and y, or of different cells of x."""
    chunks = pairwise_distances_chunked(x, y, metric="euclidean", working_memory=_MEMORY)
    total = sum(float(kernel(distances).sum()) for distances in chunks)
    n = x.shape[0]
    if y is not None:
        return float(total / (n * y.shape[0]))
    itself = float(kernel(np.zeros(1))[0])  # the distance of a cell to itself comes out as exactly 0
    return float((total - n * itself) / (n * (n - 1)))


def _median_distance(x: Any, y: Any) -> float:
    step = -(-(x.shape[0] + y.shape[0]) // _MEDIAN_ROWS)
    distances = euclidean_distances(np.vstack([to_dense(x[::step]), to_dense(y[::step])]))
    return float(np.median(squareform(distances, checks=False)))
