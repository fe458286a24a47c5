from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.matrix import check_is_matrix


def poisson_counts(values: Any, scale: float = 1.0, *, seed: int = 0) -> Any:
    """Draw counts for values that are not whole, such as counts corrected for ambient RNA: z ~ Poisson(scale · x).

    Train a model on the counts, and divide what it imputes by `scale`. The draw adds a variance of x / scale to the
    values, so choose `scale` large enough for the differences that matter, and no larger:
    counts of many thousands make training slow.

    Parameters
    ----------
    values
        Non-negative numbers, shape ``(n_obs, n_vars)``, dense or CSR; NaN, a missing entry, stays NaN.
    scale
        ζ > 0.
    seed
        Seed of ``numpy.random.default_rng``. One number is drawn for each non-zero entry, in row-major order: sparse
        and dense numbers give the same counts.

    Returns
    -------
    counts
        Whole numbers, float32, dense or CSR as `values` are.

    Raises
    ------
    ValueError
        If the scale is not positive, or a value is negative or infinite.
    TypeError
        If `values` is sparse, but not CSR.

    References
    ----------
    Chen & Zhou (2023), Learning to Jump: thinning and thickening latent counts for generative modeling,
    arXiv 2305.18375.

    Examples
    --------
    >>> corrected = adata.layers["counts"] * 0.9
    >>> adata.layers["counts"] = countsdiff.pp.poisson_counts(corrected, scale=10)
    >>> countsdiff.pp.impute(adata)
    >>> adata.layers["imputed"] = adata.layers["imputed"] / 10
    """
    if not scale > 0.0:
        raise ValueError(f"scale is {scale}; it multiplies the values and must be positive")
    check_is_matrix(values=values)
    if sparse.issparse(values):
        if values.format != "csr":
            raise TypeError(f"values are sparse in {values.format.upper()} format; convert them with .tocsr()")
        counts = values.astype(np.float32)
        counts.sum_duplicates()
        counts.eliminate_zeros()
        counts.data = _draw(counts.data, scale, seed)
        counts.eliminate_zeros()
        return counts
    counts = np.array(values, dtype=np.float32)
    positions = np.nonzero(counts)
    counts[positions] = _draw(counts[positions], scale, seed)
    return counts


def _draw(values: NDArray[np.float32], scale: float, seed: int) -> NDArray[np.float32]:
    missing = np.isnan(values)
    wrong = values[~(missing | ((values >= 0) & np.isfinite(values)))]
    if wrong.size:
        raise ValueError(f"values hold {wrong[0]:g}; only non-negative numbers have Poisson counts")
    mean = np.where(missing, 0.0, values.astype(np.float64)) * scale
    return np.where(missing, np.nan, np.random.default_rng(seed).poisson(mean)).astype(np.float32)
