"""Places that may not be written to are told before anything is computed, and files there stay as they are."""

import os
import tempfile
from pathlib import Path

import pytest

from countsdiff import CountsDiffImputer

NOBODY = 65534
EVALUATE = ("evaluate", "--truth", "in.h5ad", "--imputed", "in.h5ad", "--missing-layer", "hidden")


@pytest.fixture
def unprivileged():
    """The rights of a user who owns nothing here: root may write to what is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def home(adata, monkeypatch):
    """The working folder: data, an open and a read-only folder. Those that pytest makes no other user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        adata.write_h5ad(home / "in.h5ad")
        adata.write_zarr(home / "in.zarr")
        (home / "open").mkdir()
        (home / "open").chmod(0o777)
        (home / "shut").mkdir()
        (home / "shut" / "old.h5ad").write_bytes(b"of somebody else")
        (home / "shut").chmod(0o555)
        monkeypatch.chdir(home)
        yield home


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("impute", "in.h5ad", "--out", "shut/new.h5ad"), "shut/new.h5ad"),
        (("impute", "in.h5ad", "--out", "shut/old.h5ad"), "shut/old.h5ad"),
        (("impute", "in.zarr", "--out", "shut/new.zarr", "--save-model", "shut/model"), "shut/new.zarr"),
        (("impute", "in.h5ad", "--out", "open/new.h5ad", "--save-model", "shut/model"), "shut/model"),
        (("impute", "in.h5ad", "--out", "open/new.h5ad", "--save-model", "shut/more/model"), "shut/more/model"),
        (("impute", "in.h5ad", "--out", "open/new.h5ad", "--resume", "shut/training.ckpt"), "shut/training.ckpt"),
        (("impute", "in.h5ad", "--out", "open/new.h5ad", "--report", "shut/page.html"), "shut/page.html"),
        ((*EVALUATE, "--json", "shut/scores.json"), "shut/scores.json"),
        (("benchmark", "in.h5ad", "--out", "shut/benchmark"), "shut/benchmark"),
        (("demo", "--out", "shut/quickstart"), "shut/quickstart"),
        (("demo", "--out", "shut"), "shut"),
        (("image", "train", "cifar10", "--data", "digits", "--out", "shut/images"), "shut/images"),
    ],
)
def test_a_read_only_folder(home, run, unprivileged, monkeypatch, arguments, name):
    def train(*args, **kwargs):
        raise AssertionError("the folder is checked before training")

    monkeypatch.setattr(CountsDiffImputer, "train", train)
    before = sorted(home.rglob("*"))
    status, out, err = run(*arguments)
    expected = f"{name}: no permission to write to {home.resolve() / 'shut'}; choose another place."
    assert (status, out, err) == (2, "", f"countsdiff: error: {expected}\n")
    assert sorted(home.rglob("*")) == before
    assert Path("shut/old.h5ad").read_bytes() == b"of somebody else"


@pytest.fixture
def unreadable(home):
    Path("in.h5ad").chmod(0)


def test_an_unreadable_file(unreadable, run, unprivileged):
    status, _, err = run("impute", "in.h5ad", "--out", "open/new.h5ad")
    assert (status, err) == (2, "countsdiff: error: Invalid value for 'IN': path 'in.h5ad' is not readable.\n")


def test_an_unreadable_file_to_benchmark(unreadable, home, run, unprivileged):
    status, _, err = run("benchmark", "in.h5ad", "--out", "open/benchmark", "--methods", "gene_mean")
    assert (status, err) == (2, "countsdiff: error: in.h5ad: no permission to read this file.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("impute", "in.h5ad", "--out"),
        ("impute", "in.h5ad", "--out", "open/new.h5ad", "--save-model"),
        ("benchmark", "--out"),
        ("demo", "--out"),
        ("image", "train", "cifar10", "--data", "digits", "--out"),
    ],
)
def test_a_name_that_no_file_can_have(home, run, arguments):
    name = 300 * "x" + ".h5ad"
    status, _, err = run(*arguments, name)
    assert (status, err) == (2, f"countsdiff: error: {name}: File name too long; choose another name.\n")


def test_long_names_that_files_can_have(home, run):
    out, model = Path(230 * "x" + ".h5ad"), Path(245 * "m")
    assert run("impute", "in.h5ad", "--out", out, "--save-model", model, "--steps", 1)[0] == 0
    assert out.is_file()
    assert run("impute", "in.h5ad", "--out", out, "--model", model)[0] == 0
