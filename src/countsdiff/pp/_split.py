from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.matrix import check_is_matrix
from countsdiff.pp._masks import check_share


def molecular_split(counts: Any, share: float = 0.9, *, seed: int = 0) -> tuple[Any, Any]:
    """Split the molecules of every entry at random into two matrices that add up to the counts.

    The molecules kept are binomial given the counts. If counts are Poisson given the cell's expression, the
    two parts are independent, so that the held-out one can judge what is made of the other.

    Parameters
    ----------
    counts
        Non-negative whole numbers of any numeric dtype, shape ``(n_obs, n_vars)``, dense or CSR.
    share
        Probability of each molecule to be kept, in [0, 1].
    seed
        Seed of ``numpy.random.default_rng``. One number is drawn for each non-zero entry, in row-major order:
        sparse and dense counts are split alike. The masks draw from the same numbers: where both are used, give them
        different seeds.

    Returns
    -------
    kept, held_out
        Of the type, dtype and shape of `counts`.

    Raises
    ------
    ValueError
        If `share` is not in [0, 1], or a value is not a non-negative integer.
    TypeError
        If `counts` is sparse, but not CSR, or boolean.

    References
    ----------
    Batson, Royer & Webber (2019), Molecular cross-validation for single-cell RNA-seq, bioRxiv 786269.
    """
    check_share(share)
    check_is_matrix(counts=counts)
    if not sparse.issparse(counts):
        counts = np.asarray(counts)
    if counts.dtype == np.bool_:
        raise TypeError("counts are boolean; make them numbers: counts.astype(int)")
    if not sparse.issparse(counts):
        kept, held_out = np.zeros_like(counts), np.zeros_like(counts)
        positions = np.nonzero(counts)
        kept[positions], held_out[positions] = _split(counts[positions], share, seed)
        return kept, held_out
    if counts.format != "csr":
        raise TypeError(f"counts are sparse in {counts.format.upper()} format; convert them with .tocsr()")
    kept = counts.copy()
    kept.sum_duplicates()
    kept.eliminate_zeros()
    held_out = kept.copy()
    kept.data, held_out.data = _split(kept.data, share, seed)
    kept.eliminate_zeros()
    held_out.eliminate_zeros()
    return kept, held_out


def _split(values: NDArray[Any], share: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    wrong = values[~((values >= 0) & (values == np.floor(values)) & np.isfinite(values))]
    if wrong.size:
        raise ValueError(f"counts hold {wrong[0]:g}; only non-negative integers can be split into molecules")
    kept = np.random.default_rng(seed).binomial(values.astype(np.int64), share).astype(values.dtype)
    return kept, values - kept
