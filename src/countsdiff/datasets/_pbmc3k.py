from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def pbmc3k() -> "AnnData":
    """Counts of 2,638 blood cells, with their types.

    The 2,000 most variable genes of the 3k PBMCs from a healthy donor, by 10x Genomics under CC BY 4.0, with the cells
    and cell types of the Seurat tutorial. The set lies in the package: nothing is downloaded.

    Returns
    -------
    AnnData
        Shape ``(2638, 2000)``. Raw counts, float32 CSR, in ``X`` and once more in ``layers["counts"]``, where they stay
        when ``X`` is normalised. ``obs["cell_type"]``: 9 types; ``obs["n_counts_total"]``: counts over all genes, also
        those left out; ``var["highly_variable"]``: the 1,000 most variable genes; ``uns``: source, licence, citation.

    Examples
    --------
    >>> import countsdiff
    >>> adata = countsdiff.datasets.pbmc3k()
    >>> adata.obs["cell_type"].nunique()
    9
    """
    import anndata

    with as_file(files("countsdiff.datasets") / "pbmc3k.h5ad") as path:
        adata = anndata.read_h5ad(path)
    adata.X = adata.X.astype("float32")
    adata.layers["counts"] = adata.X.copy()
    return adata
