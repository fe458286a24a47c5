"""The data sets and the protocol that all benchmark scripts share."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from numpy.typing import NDArray

from countsdiff import pp

# data set -> column of obs with the labels that the label mean may use; cell_type, if there is one, for others
DATASETS = {
    "pbmc3k": "classified",
    "heart_fetal_st": "region",
    "cite_pbmc10k": "adt_gate_derived",
    "mca_fetal": "cell_type",
    "worm_embryo": "cell_type",
    "atac_hemato600": "cell_type",
}
MIN_CELLS = 10


@dataclass(frozen=True)
class Dataset:
    """Counts (n_obs, n_vars) as dense float32, and one label per cell where there are any."""

    name: str
    counts: NDArray[np.float32]
    labels: NDArray[np.str_] | None


def load(name: str, data_dir: Path, n_genes: int = 1000) -> Dataset:
    """Read ``data_dir/sc/name.h5ad``, keep genes seen in at least 10 cells, and of these the most variable."""
    path = data_dir / "sc" / f"{name}.h5ad"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; point --data or COUNTSDIFF_DATA at the folder that holds sc/")
    adata = ad.read_h5ad(path)
    sc.pp.filter_genes(adata, min_cells=MIN_CELLS)
    adata = adata[:, pp.highly_variable(adata, n_genes)]
    column = DATASETS.get(name, "cell_type")
    # numba, which scanpy runs on, resets the number of threads that torch was told to use
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    labels = adata.obs[column].astype(str).to_numpy() if column in adata.obs else None
    return Dataset(name, adata.X.toarray().astype(np.float32), labels)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments that all benchmark scripts take."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("datasets", nargs="*", default=list(DATASETS), help="default: all six")
    result.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("COUNTSDIFF_DATA"),
        required="COUNTSDIFF_DATA" not in os.environ,
        help="folder that holds sc/ (default: $COUNTSDIFF_DATA)",
    )
    result.add_argument("--seeds", type=int, nargs="+", default=[1], help="each hides other entries (default: 1)")
    return result
