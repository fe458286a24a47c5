import dataclasses
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from countsdiff import datasets
from countsdiff.datasets.atlases import ATLASES, Atlas
from countsdiff.download import cache_dir


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTSDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def adata():
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (30, 8)).astype(np.float64))
    adata = ad.AnnData(counts)
    adata.obs_names = [f"cell{i}" for i in range(30)]
    adata.obs["cell_type"] = ["a", "b"] * 15
    return adata


@pytest.fixture
def make(adata, tmp_path):
    """Make an atlas of a small file on this machine."""

    def make(adata=adata, sha256=None, n_obs=30):
        path = tmp_path / "server.h5ad"
        adata.write_h5ad(path)
        return Atlas("tiny", path.as_uri(), "1 MB", sha256, n_obs)

    return make


def test_downloads_once_and_reads_some_cells(adata, make, cache):
    atlas = make()
    part = atlas.sample(12, seed=3)
    assert part.shape == (12, 8)
    assert part.X.dtype == np.float32
    np.testing.assert_array_equal(part.X.toarray(), adata[part.obs_names].X.toarray())
    assert list(part.obs_names) == sorted(part.obs_names, key=lambda name: int(name[4:]))
    assert list(part.var_names) == list(adata.var_names)
    assert [path.name for path in cache.iterdir()] == ["tiny.h5ad"]
    gone = dataclasses.replace(atlas, url="file:///nowhere.h5ad")
    assert gone.sample(12, seed=3).obs_names.equals(part.obs_names)
    assert not gone.sample(12, seed=4).obs_names.equals(part.obs_names)
    whole = gone.sample(None, seed=0)
    np.testing.assert_array_equal(whole.X.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(whole.obs["cell_type"], adata.obs["cell_type"])


def test_reads_the_raw_counts_where_x_is_normalised(adata, make):
    adata.raw = adata
    adata = adata[:, :5].copy()
    adata.X = np.log1p(adata.X)
    part = make(adata).sample(10, seed=0)
    assert part.shape == (10, 8)
    assert (part.X.data == np.round(part.X.data)).all()


def test_says_how_many_cells_there_are(make):
    with pytest.raises(ValueError, match="n_obs is 31; tiny has 30 cells"):
        make().sample(31, seed=0)


def test_checks_what_was_downloaded(make, tmp_path, cache):
    atlas = make()
    digest = hashlib.sha256((tmp_path / "server.h5ad").read_bytes()).hexdigest()
    for wrong, message in (
        (dataclasses.replace(atlas, sha256="0" * 64), f"checksum {digest}, not 0000"),
        (dataclasses.replace(atlas, n_obs=31), "has 30 cells, not 31"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong.sample(5, seed=0)
        assert not list(cache.iterdir())
    assert dataclasses.replace(atlas, sha256=digest).sample(5, seed=0).n_obs == 5


def test_a_file_that_is_none_is_not_kept(make, tmp_path, cache):
    atlas = make()
    (tmp_path / "server.h5ad").write_text("<html>gone</html>")
    with pytest.raises(ValueError, match=r"no \.h5ad file"):
        atlas.sample(5, seed=0)
    assert not list(cache.iterdir())


class Stingy(BaseHTTPRequestHandler):
    """Promises a thousand bytes, and sends ten."""

    def do_GET(self):
        if self.path == "/gone.h5ad":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *args):
        pass


def test_a_transfer_that_breaks_off_leaves_nothing(cache):
    server = HTTPServer(("127.0.0.1", 0), Stingy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for name, reason in (("broken", "10 of 1,000 bytes"), ("gone", "Not Found")):
            atlas = Atlas("tiny", f"http://127.0.0.1:{server.server_port}/{name}.h5ad", "1 MB", None, 30)
            with pytest.raises(ConnectionError, match=rf"cannot be downloaded \(.*{reason}.*copy it to .*tiny\.h5ad"):
                atlas.sample(5, seed=0)
            assert not list(cache.iterdir())
    finally:
        server.shutdown()
        server.server_close()


def test_offline_says_what_to_do():
    atlas = Atlas("tiny", "http://127.0.0.1:9/tiny.h5ad", "1 MB", None, 30)
    with pytest.raises(ConnectionError, match="try again with a connection to the internet, or download it elsewhere"):
        atlas.sample(5, seed=0)


def test_a_file_in_the_place_of_the_cache_is_named(make, cache):
    cache.write_text("")
    with pytest.raises(NotADirectoryError, match="let COUNTSDIFF_CACHE name one"):
        make().sample(5, seed=0)


def test_the_paper_s_atlases(make, monkeypatch):
    tiny = make()
    for name, function in (("fetal_atlas", datasets.fetal_atlas), ("heart_atlas", datasets.heart_atlas)):
        assert ATLASES[name].url.startswith("https://")
        assert ATLASES[name].url.endswith(".h5ad")
        monkeypatch.setitem(ATLASES, name, dataclasses.replace(tiny, name=name))
        assert function(7).n_obs == 7
        assert ATLASES[name].path.is_file()


def test_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("COUNTSDIFF_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "countsdiff"
