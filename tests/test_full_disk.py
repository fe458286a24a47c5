"""A disk that has room for so many bytes of a file, and no more (the system counts them), in processes of their own:
HDF5 that cannot write what it owes crashes them at their end."""

import resource
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from countsdiff import CountsDiffImputer

PROLOGUE = """
import resource, sys
def limit(n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng = np.random.default_rng(0)
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(1.0, (300, 200)).astype(np.float32)))
    adata.layers["hidden"] = sparse.csr_matrix(rng.random(adata.shape) < 0.2)
    path = tmp_path_factory.mktemp("full") / "in.h5ad"
    adata.write_h5ad(path)
    return path


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_file_of_any_length_is_whole_or_refused(source, tmp_path):
    code = """
from pathlib import Path
import anndata
from countsdiff.cli._io import InputError, write
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
adata, n_refused, n_whole = anndata.read_h5ad(source), 0, 0
for n_bytes in range(100, 400_000, 10_007):
    limit(n_bytes)
    out = folder / f"{n_bytes}.h5ad"
    try:
        write(adata, out)
    except InputError as error:
        assert str(error) == f"{out}: writing failed (File too large); make room, or write elsewhere.", error
        n_refused += 1
    else:
        assert (anndata.read_h5ad(out).X != adata.X).nnz == 0
        n_whole += 1
print(n_refused, n_whole)
"""
    status, out, err = run(code, source, tmp_path)
    assert (status, err) == (0, "")
    n_refused, n_whole = map(int, out.split())
    assert n_refused > 5
    assert n_whole > 5
    assert len(list(tmp_path.iterdir())) == n_whole  # nothing is left of the others


def test_layers_added_to_a_file(source, tmp_path):
    code = """
import shutil
from pathlib import Path
import numpy as np
from countsdiff.store.layers import add_layers
source, draft = Path(sys.argv[1]), Path(sys.argv[2])
size = source.stat().st_size
blocks = [{"imputed": np.ones((100, 200), np.float32)} for _ in range(3)]
for room in (-size // 2, 0, 1_000, 100_000, 200_000):
    shutil.copyfile(source, draft)
    limit(size + room)
    try:
        add_layers(draft, blocks, 300)
    except OSError as error:
        assert error.strerror == "File too large"
    else:
        sys.exit(f"{room} bytes sufficed")
    limit(10**9)
"""
    assert run(code, source, tmp_path / "draft.h5ad") == (0, "", "")


def test_checkpoint(source, tmp_path):
    model = CountsDiffImputer(ad.read_h5ad(source), width=16)
    path, limits = tmp_path / "checkpoint", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # no HDF5 here: this process will do
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            model.train(2, enable_progress_bar=False, resume=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def saved(source, tmp_path_factory):
    """Folder of a model."""
    adata = ad.read_h5ad(source)
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = CountsDiffImputer(adata, width=16)
    model.train(2, enable_progress_bar=False)
    folder = tmp_path_factory.mktemp("full") / "model"
    model.save(str(folder))
    return folder


@pytest.mark.parametrize("options", [(), ("--workers", "1")])
def test_command_line(source, saved, tmp_path, options):
    before, out = source.read_bytes(), tmp_path / "out.h5ad"
    out.write_text("old")
    code = "limit(int(sys.argv[1])); from countsdiff.cli import main; sys.exit(main(sys.argv[2:]))"
    # room for the input, which is copied where chunks are, but not for the result
    arguments = (len(before) + 50_000 if options else 100_000, "impute", source, "-o", out)
    status, said, complained = run(code, *arguments, "--model", saved, "-q", *options)
    where = tmp_path / "out.h5ad.parts" / "draft.h5ad" if options else out
    sentence = f"countsdiff: error: {where}: writing failed (File too large); make room, or write elsewhere.\n"
    assert (status, said, complained) == (2, "", sentence)
    assert out.read_text() == "old"
    assert not list(tmp_path.glob(".*"))
    assert source.read_bytes() == before
