import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pytest

from countsdiff import __version__, datasets
from countsdiff.cli._io import write


@pytest.mark.parametrize("has_raw", [False, True])
def test_files_are_those_that_anndata_writes(adata, tmp_path, has_raw):
    def content(path):
        found = {}

        def note(name, item):
            found[name] = [{key: str(value) for key, value in item.attrs.items()}]
            if isinstance(item, h5py.Dataset):
                found[name] += [item.dtype, item.compression, item.shape, np.array(item).tolist()]

        with h5py.File(path) as file:
            note("/", file)
            file.visititems(note)
        return found

    adata.raw = adata.copy() if has_raw else None
    adata.obs["text"] = list("abc") * 20
    adata.obsm["X_pca"] = np.ones((60, 2))
    adata.uns["note"] = {"a": "text", "b": 3}
    write(adata.copy(), tmp_path / "a.h5ad")
    adata.copy().write_h5ad(tmp_path / "b.h5ad", compression="gzip", compression_opts=1)
    assert content(tmp_path / "a.h5ad") == content(tmp_path / "b.h5ad")


def test_demo_compares_with_the_baselines_and_writes_both_files(run, tmp_path, monkeypatch, dense):
    some = datasets.pbmc3k()[::10].copy()
    monkeypatch.setattr(datasets, "pbmc3k", lambda: some)
    status, text, _ = run("demo", "--out", tmp_path / "new" / "folder", "--steps", 5)
    assert status == 0
    for method in ("gene mean", "size-factor mean", "label mean", "kNN smoothing", "CountsDiff"):
        assert method in text
    result = ad.read_h5ad(tmp_path / "new/folder/imputed.h5ad")
    hidden = result.layers["hidden"].toarray()
    assert result.shape == (264, 1000)
    assert hidden.mean() == pytest.approx(0.5, abs=0.005)
    assert result.X.toarray()[hidden].sum() == 0
    observed = dense(result.layers["truth"])[~hidden]
    np.testing.assert_array_equal(dense(result.layers["imputed"])[~hidden], observed)
    assert "counts" not in result.layers
    assert (tmp_path / "new/folder/demo.png").read_bytes().startswith(b"\x89PNG")


def test_version(run):
    assert run("--version") == (0, f"countsdiff {__version__}\n", "")


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_help_names_the_commands(run, args):
    status, text, _ = run(*args)
    assert status == 0
    for command in ("impute", "evaluate", "demo"):
        assert command in text


def test_help_loads_nothing_heavy():
    code = (
        "import sys, time; start = time.process_time(); from countsdiff.cli import main; main(['impute', '--help']);"
        "heavy = {'torch', 'scvi', 'lightning', 'anndata', 'scanpy', 'pandas', 'numpy'} & set(sys.modules);"
        "sys.exit(f'loads {heavy}' if heavy else time.process_time() - start > 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
