from importlib.resources import files

import numpy as np
import pytest
from scipy import sparse

from countsdiff import datasets


@pytest.fixture(scope="module")
def adata():
    return datasets.pbmc3k()


def test_has_the_known_cells_genes_and_molecules(adata):
    assert adata.shape == (2638, 2000)
    assert (adata.X.nnz, adata.X.sum(dtype=np.float64), adata.X.max()) == (561_496, 2_027_653, 419)
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert {"CD79A", "LYZ", "NKG7", "PPBP"} <= set(adata.var_names)
    assert adata.obs["n_counts_total"].sum() == 6_254_880
    assert adata.var["highly_variable"].sum() == 1000


def test_holds_counts_in_x_and_again_in_a_layer_of_its_own(adata):
    for counts in (adata.X, adata.layers["counts"]):
        assert sparse.issparse(counts)
        assert (counts.format, counts.dtype) == ("csr", np.float32)
        assert (counts.data > 0).all()
        assert (counts.data == np.round(counts.data)).all()
    assert not np.shares_memory(adata.X.data, adata.layers["counts"].data)
    assert (adata.X != adata.layers["counts"]).nnz == 0


def test_has_the_labels_of_the_seurat_tutorial(adata):
    assert adata.obs["cell_type"].value_counts().to_dict() == {
        "Naive CD4 T": 697,
        "Memory CD4 T": 483,
        "CD14+ Mono": 480,
        "B": 344,
        "CD8 T": 271,
        "FCGR3A+ Mono": 162,
        "NK": 155,
        "DC": 32,
        "Platelet": 14,
    }
    # platelets are named for what they express
    platelets = (adata.obs["cell_type"] == "Platelet").to_numpy()
    assert adata[platelets, "PPBP"].X.mean() > 20 * adata[~platelets, "PPBP"].X.mean()


def test_every_gene_was_detected_in_ten_cells(adata):
    assert (adata.X.getnnz(axis=0) >= 10).all()


def test_records_source_licence_and_citation(adata):
    assert "10x Genomics" in adata.uns["source"]
    assert adata.uns["license"].startswith("CC BY 4.0")
    assert "Zheng" in adata.uns["citation"]


def test_is_small_enough_to_travel_with_the_package():
    assert len((files("countsdiff.datasets") / "pbmc3k.h5ad").read_bytes()) <= 2_000_000


def test_each_call_gives_fresh_data(adata):
    other = datasets.pbmc3k()
    other.X.data[:] = 0
    assert adata.X.sum() > 0
