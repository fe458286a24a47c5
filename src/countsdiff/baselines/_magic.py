from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._base import Counts, Imputer, Missing, Pool, at_own_depth, gene_means, normalise, observe, size_factors

_TRANSFORMS = {"sqrt": (np.sqrt, np.square), "log": (np.log1p, np.expm1), "none": (np.positive, np.positive)}


@dataclass(frozen=True)
class MAGIC(Imputer):
    """Diffusion over the graph of similar cells, with the settings of the authors' package (van Dijk et al. 2018).

    MAGIC knows no missing entries. Taken as zeros they would pull every prediction down and blur the graph. So
    the graph is built with each of them at its gene's mean, and only observed entries are diffused: the
    diffused values are divided by the diffused indicators of being observed. With nothing missing the diffused
    values are MAGIC's own. The transform is undone, and the profile brought back to the cell's own depth.

    Parameters
    ----------
    transform
        Applied to the normalised counts: "sqrt" (as the authors recommend), "log" (``log1p``) or "none".

    References
    ----------
    van Dijk et al. (2018), Recovering gene interactions from single-cell data using data diffusion, Cell 174,
    716-729.
    """

    transform: Literal["sqrt", "log", "none"] = "sqrt"

    def __post_init__(self) -> None:
        if self.transform not in _TRANSFORMS:
            raise ValueError(f"transform is {self.transform!r}; choose one of {list(_TRANSFORMS)}")

    @property
    def name(self) -> str:
        """Key in ``BASELINES``."""
        return f"magic_{self.transform}"

    def fit(self, counts: Counts, missing: Missing | None, *, labels: ArrayLike | None = None, seed: int = 0) -> Pool:
        """Keep the cells; see :class:`Imputer`.

        Raises
        ------
        ImportError
            If the package magic-impute is not installed.
        """
        try:
            import magic
        except ImportError as error:
            raise ImportError('MAGIC is not installed; run: pip install "countsdiff[baselines]"') from error
        new_operator = partial(magic.MAGIC, random_state=seed, verbose=0)
        return Pool(*observe(counts, missing), partial(self._predict, new_operator=new_operator))

    def _predict(self, counts: Counts, observed: NDArray[np.float32], *, new_operator: Callable[[], Any]) -> Counts:
        size = size_factors(counts, observed, gene_means(counts, observed))
        forward, inverse = _TRANSFORMS[self.transform]
        values = forward(normalise(counts, size))
        filled = np.where(observed > 0, values, gene_means(values, observed))
        operator = new_operator().fit(filled)
        weights = observed
        for _ in range(operator.t):
            values, weights = operator.diff_op @ values, operator.diff_op @ weights
        # no observed entry within reach: the gene's mean
        means = np.divide(values, weights, out=filled.astype(np.float64), where=weights > 0)
        return at_own_depth(inverse(means), counts, observed)
