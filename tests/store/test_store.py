"""Stores that are given layers block by block."""

import errno
import os

import anndata as ad
import numpy as np
import pytest
import zarr
from scipy import sparse

from countsdiff.store.layers import add_layers
from countsdiff.store.whole import copy_store


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "in.zarr"
    ad.AnnData(sparse.csr_matrix(np.eye(40, dtype=np.float32))).write_zarr(path)
    return path


def test_a_first_block_without_entries_does_not_make_a_file_of_every_entry(path):
    rng = np.random.default_rng(0)
    blocks = [sparse.csr_matrix((20, 40), dtype=np.float32), sparse.csr_matrix(rng.random((20, 40), dtype=np.float32))]
    add_layers(path, ({"filled": block} for block in blocks), 40)
    np.testing.assert_array_equal(ad.read_zarr(path).layers["filled"].toarray(), sparse.vstack(blocks).toarray())
    assert zarr.open_array(path / "layers" / "filled" / "data").nchunks == 1


def test_a_copy_of_what_may_not_be_written_may_be(path):
    everything = [path, *path.rglob("*")]
    for thing in everything:
        thing.chmod(thing.stat().st_mode & ~0o222)
    copy = path.with_name("copy.zarr")
    copy_store(path, copy)
    copied = [copy, *copy.rglob("*")]
    assert len(copied) == len(everything)
    assert all(thing.stat().st_mode & 0o200 for thing in copied)
    np.testing.assert_array_equal(ad.read_zarr(copy).X.toarray(), np.eye(40))
    for thing in everything:  # or pytest cannot remove them
        thing.chmod(thing.stat().st_mode | 0o200)


def test_a_folder_that_cannot_be_listed_is_no_empty_one(path, monkeypatch):
    listed = os.scandir

    def scandir(folder):
        if str(folder).endswith("data"):
            raise OSError(errno.EIO, "Input/output error", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match="Input/output error"):
        copy_store(path, path.with_name("copy.zarr"))
