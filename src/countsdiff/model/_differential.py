"""Differences between groups of cells, with imputed entries never taken for measured ones."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import stats

from countsdiff.arguments import check_whole
from countsdiff.core.sampler import SamplerConfig
from countsdiff.metrics import log_normalise, pool_imputations
from countsdiff.model._base import CellModel
from countsdiff.model._data import is_single
from countsdiff.model.missing import Missing, resolve_missing
from countsdiff.model.request import Request
from countsdiff.model.write import collect

_PRIOR_DF = 10.0  # degrees of freedom that a gene's common variance counts for in either group


class DifferentialModel(CellModel):
    """Differential expression by multiple imputation."""

    def differential_expression(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: str | Sequence[str] | None = None,
        group2: str | None = None,
        *,
        missing: Missing = None,
        n_imputations: int = 10,
        n_steps: int = 20,
        guidance_scale: float = 1.0,
        target_sum: float = 1e4,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Test for differences between groups of cells with missing entries, not treating imputed values as measured.

        Missing entries are drawn several times. Every completed data set gets Welch's t test on log1p of counts per
        `target_sum`, with the variances of small groups drawn towards the gene's common one; the estimates are pooled
        by Rubin's rules, whose variance includes how much the imputations differ
        (:func:`~countsdiff.metrics.pool_imputations`).

        Register the groups as labels or covariates: between groups that it does not know the model assumes no
        difference when it draws missing entries, and p-values are larger than they could be (Meng 1994). Even with
        registered groups the network shrinks weak differences, and tests are conservative: without any difference, 0 to
        2 % of them were significant at 5 % where 20 to 50 % of the entries were missing.

        Parameters
        ----------
        adata
            Data to test. Default: the training data.
        groupby
            Column of ``adata.obs`` with the groups.
        group1
            Group to test, or several. Default: each of them.
        group2
            Group to test against. Default: all other cells.
        missing
            Entries to impute, as for :meth:`impute`. Default: those missing in the data. ``"zeros"`` and ``"all"`` are
            refused: with them no entry is missing.
        n_imputations
            Number of draws, at least 2.
        n_steps, guidance_scale, batch_size, seed
            As for :meth:`impute`.
        target_sum
            Depth to which cells are normalised.

        Returns
        -------
        One row for each gene and tested group: ``group1``, ``group2``, the mean normalised log expression ``mean1`` and
        ``mean2``, their ``difference``, its ``std_error``, ``statistic`` and degrees of freedom ``df``, ``p_value``,
        ``p_adjusted`` (Benjamini & Hochberg, within the group), and ``missing_information``, the share of the variance
        that is due to what is missing.

        Raises
        ------
        ValueError
            If nothing is missing, a group is unknown or has fewer than two cells, or there are too few imputations.
        KeyError
            If there is no such column.

        Examples
        --------
        >>> table = model.differential_expression(groupby="cell_type", group1="B")
        >>> different = table[table["p_adjusted"] < 0.05]
        """
        check_whole(2, n_imputations=n_imputations)  # for Rubin's rules
        self._check_if_trained(warn=False)
        adata = self._anndata_or_own(adata)
        comparisons = _comparisons(adata, groupby, group1, group2)
        cells = self._cells(adata)
        task = resolve_missing(missing, adata, cells.reader, cells.labels)
        if task.evidence:
            raise ValueError(
                "There are no missing entries to impute, and zeros are evidence: test the counts themselves, for "
                "example with scanpy.tl.rank_genes_groups, or say by missing= which entries are missing."
            )
        estimates: list[list[tuple[NDArray, ...]]] = [[] for _ in comparisons]
        groups = np.zeros((2 * len(comparisons), adata.n_obs))
        for i, (_, _, *pair) in enumerate(comparisons):
            for j, members in enumerate(pair):
                groups[2 * i + j, members] = 1.0
        rows = np.flatnonzero(groups.any(axis=0))
        for draw in range(n_imputations):
            moments = _Moments(groups[:, rows], adata.n_vars, target_sum)
            request = Request("sample", sampler=SamplerConfig(n_steps), seed=seed, first_draw=draw)
            collect(self._answers(cells, task, request, guidance_scale, rows, batch_size=batch_size), moments)
            mean, variance, size = moments.mean(), moments.variance(), moments.sizes
            for i, results in enumerate(estimates):
                results.append(_welch(*(v[2 * i : 2 * i + 2] for v in (mean, variance, size))))
        tables = []
        for (name1, name2, _, _), results in zip(comparisons, estimates, strict=True):
            mean1, mean2, variances, df = (np.stack(values) for values in zip(*results, strict=True))
            pooled = pool_imputations(mean1 - mean2, variances, df.mean(0))
            table = {
                "group1": name1,
                "group2": name2,
                "mean1": mean1.mean(0),
                "mean2": mean2.mean(0),
                "difference": pooled.estimate,
                "std_error": np.sqrt(pooled.variance),
                "statistic": pooled.statistic,
                "df": pooled.df,
                "p_value": pooled.p_value,
                "p_adjusted": stats.false_discovery_control(pooled.p_value),
                "missing_information": pooled.missing_information,
            }
            tables.append(pd.DataFrame(table, index=adata.var_names))
        return pd.concat(tables)


def _comparisons(
    adata: AnnData, groupby: str | None, group1: str | Sequence[str] | None, group2: str | None
) -> list[tuple[str, str, NDArray[np.intp], NDArray[np.intp]]]:
    """Names and cells of the groups to compare."""
    if groupby not in adata.obs:
        raise KeyError(f"adata.obs has no column {groupby!r} to group by; it has {list(adata.obs.columns)}.")
    column = adata.obs[groupby]
    known = list(pd.unique(column.dropna()))
    if not is_single(group2):
        raise TypeError(f"group2 is one group, or None for all others; got {group2!r}.")
    others = [group for group in known if group2 is None or group != group2]
    first: list[Any] = others if group1 is None else [group1] if is_single(group1) else [*group1]
    if not first:
        raise ValueError(f"There is no group to test: group1={group1!r}, and adata.obs[{groupby!r}] has {known}.")
    for group in [*first, *([] if group2 is None else [group2])]:
        if group not in known:
            raise ValueError(f"Group {group!r} is not in adata.obs[{groupby!r}], which has {known}.")
    if group2 is not None and group2 in first:
        raise ValueError(f"Group {group2!r} cannot be tested against itself; leave it out of group1, or out of group2.")
    comparisons = []
    for group in first:
        is_first = (column == group).to_numpy()
        is_second = (column.notna() & ~is_first).to_numpy() if group2 is None else (column == group2).to_numpy()
        cells = np.flatnonzero(is_first), np.flatnonzero(is_second)
        if min(map(len, cells)) < 2:
            sizes = f"{len(cells[0])} and {len(cells[1])}"
            raise ValueError(f"Group {group!r} and what it is tested against have {sizes} cells; a test needs two.")
        comparisons.append((group, "rest" if group2 is None else group2, *cells))
    return comparisons


class _Moments:
    """Means and variances of groups of cells, normalised and logged, without keeping the cells.

    Parameters
    ----------
    groups
        1 where a cell belongs to a group, else 0, shape ``(n_groups, n_obs)``.
    n_vars
        Number of genes.
    target_sum
        Depth to which cells are normalised.
    """

    def __init__(self, groups: NDArray[np.float64], n_vars: int, target_sum: float):
        self.groups, self.sizes, self.target_sum = groups, groups.sum(1, keepdims=True), target_sum
        self._sums, self._squares = np.zeros((2, len(groups), n_vars))
        self._seen = 0

    def add(self, matrices: Iterable[NDArray[np.float32]]) -> None:
        """Add the next cells."""
        (matrix,) = matrices
        values = log_normalise(matrix, self.target_sum)
        members = self.groups[:, self._seen : self._seen + len(values)]
        self._sums += members @ values
        self._squares += members @ np.square(values)
        self._seen += len(values)

    def mean(self) -> NDArray[np.float64]:
        """Means, shape ``(n_groups, n_vars)``."""
        return self._sums / self.sizes

    def variance(self) -> NDArray[np.float64]:
        """Unbiased variances, shape ``(n_groups, n_vars)``."""
        within = self._squares - np.square(self._sums) / self.sizes
        # what rounding leaves of a gene that does not vary is no variance
        return np.where(within > 1e-12 * self._squares, within, 0.0) / (self.sizes - 1.0)


def _welch(mean: NDArray, variance: NDArray, size: NDArray) -> tuple[NDArray[np.float64], ...]:
    """Means of two groups, the variance of their difference, and its degrees of freedom, gene by gene.

    Variances are drawn towards the one that both groups have together, as if that was known of `_PRIOR_DF` cells of
    each (cf. Smyth 2004, who draws towards other genes): of ten cells all may show zero, by chance, and a variance of
    zero makes any difference certain.
    """
    own = size - 1.0
    together = (own * variance).sum(0) / own.sum()
    df = own + _PRIOR_DF
    v, w = (own * variance + _PRIOR_DF * together) / (df * size)
    spread = np.square(v) / df[0] + np.square(w) / df[1]
    df = np.divide(np.square(v + w), spread, out=np.ones_like(v), where=spread > 0)
    return *mean, v + w, np.minimum(df, own.sum())  # no more than all cells have
