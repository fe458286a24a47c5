"""Files to work on, and the command line as functions."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from countsdiff.cli import main

FAST = ("--steps", "20", "--accelerator", "cpu")


@pytest.fixture
def make_cells():
    """Factory of 60 cells of two kinds, with a layer of missing entries."""

    def make_cells(n_genes, share_missing):
        rng = np.random.default_rng(0)
        kind = np.repeat([0, 1], 30)
        rate = np.where(np.arange(n_genes) % 2 == kind[:, None], 3.0, 0.5) * rng.gamma(4, 0.25, (60, 1))
        obs = pd.DataFrame({"kind": kind.astype(str)}, index=[f"cell{i}" for i in range(60)])
        var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
        adata = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)
        adata.layers["hidden"] = sparse.csr_matrix(rng.random(adata.shape) < share_missing)
        return adata

    return make_cells


@pytest.fixture
def adata(make_cells):
    return make_cells(12, share_missing=0.4)


@pytest.fixture
def save(tmp_path):
    def save(adata, name="in.h5ad"):
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def run(capsys):
    """Run the command line; return its exit status, standard output and standard error."""

    def run(*args):
        capsys.readouterr()
        status = main([str(a) for a in args])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def dense():
    """Dense array of a matrix that may be sparse."""
    return lambda matrix: matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


@pytest.fixture
def imputed(run, dense):
    """Train on a file and impute it; return the layer written."""

    def imputed(source, out, *options, layer="imputed"):
        status, _, err = run("impute", source, "-o", out, *FAST, *options)
        assert status == 0, err
        return dense(ad.read_h5ad(out).layers[layer])

    return imputed


@pytest.fixture
def imputed_by(run, dense):
    """Impute a file by a saved model; return the layer written."""

    def imputed_by(model, source, out, *options):
        status, _, err = run("impute", source, "-o", out, "--model", model, *options)
        assert status == 0, err
        return dense(ad.read_h5ad(out).layers["imputed"])

    return imputed_by
