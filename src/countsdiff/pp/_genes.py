import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from countsdiff.counts import check_counts, stored_values
from countsdiff.layers import get_layer
from countsdiff.matrix import to_dense


def highly_variable(adata: AnnData, n_genes: int, *, layer: str | None = None) -> NDArray[np.bool_]:
    """Choose highly variable genes by scanpy's default flavour, on ``log1p`` of counts per 10,000.

    Parameters
    ----------
    adata
        Annotated counts, ``(n_obs, n_vars)``; not changed.
    n_genes
        Number of genes to choose. Genes that tie with the last one are chosen too; all are, if there are no
        more.
    layer
        Layer with the counts; None for ``X``.

    Returns
    -------
    numpy.ndarray
        Boolean, shape ``(n_vars,)``, True for the chosen genes.

    Raises
    ------
    ValueError
        If `n_genes` is not positive, or there are more genes, none of which varies, or the values are no counts, as
        normalised ones are, or NaN, or names of genes repeat.
    KeyError
        If there is no such layer.

    References
    ----------
    Satija et al. (2015), Spatial reconstruction of single-cell gene expression data, Nat. Biotechnol. 33, 495-502: the
    normalised dispersion, as in ``scanpy.pp.highly_variable_genes(flavor="seurat")``.
    """
    import scanpy as sc  # takes seconds, and nothing else in pp needs it

    if n_genes < 1:
        raise ValueError(f"n_genes is {n_genes}; choose at least one gene")
    counts = get_layer(adata, layer)
    if adata.n_vars <= n_genes:
        return np.ones(adata.n_vars, dtype=bool)
    check_counts(adata, layer)
    work = AnnData(counts.astype(np.float32))  # astype copies
    if np.isnan(stored_values(work.X)).any():
        raise ValueError(
            "NaN marks missing counts, of which genes cannot be chosen; choose from data without, or zeros."
        )
    if not to_dense(work.X.max(axis=0) != work.X.min(axis=0)).any():
        raise ValueError("No gene varies from cell to cell, so that none can be chosen; take all of them.")
    sc.pp.normalize_total(work, target_sum=1e4)
    sc.pp.log1p(work)
    table = sc.pp.highly_variable_genes(work, n_top_genes=n_genes, inplace=False)
    return np.asarray(table["highly_variable"], dtype=bool)
