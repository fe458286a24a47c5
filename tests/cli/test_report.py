import re
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

from countsdiff import CountsDiffImputer
from countsdiff.cli import _job
from countsdiff.cli._settings import Layers, Training
from countsdiff.counts import CellReader
from countsdiff.layers import named_layers
from countsdiff.model.hold_out import hold_out

FAST = ("--steps", "20", "--accelerator", "cpu", "--labels-key", "kind")


@pytest.fixture
def adata(make_cells):
    return make_cells(30, share_missing=0.2)


@pytest.fixture
def run(run, save, adata, tmp_path):
    """Impute `adata` with a report; return exit status, standard output and error."""

    def impute(*options, report=tmp_path / "report.html"):
        return run("impute", save(adata), "-o", tmp_path / "out.h5ad", "--report", report, *options)

    return impute


def test_writes_a_page_beside_a_complete_result(run, adata, tmp_path, dense):
    status, text, err = run(*FAST, "--missing-layer", "hidden")
    assert status == 0, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad", "report.html"]
    assert str(tmp_path / "report.html") in text
    out, missing = ad.read_h5ad(tmp_path / "out.h5ad"), adata.layers["hidden"].toarray()
    assert set(named_layers(out)) == {"hidden", "imputed"}
    np.testing.assert_array_equal(out.layers["hidden"].toarray(), missing)
    result, counts = dense(out.layers["imputed"]), adata.X.toarray()
    np.testing.assert_array_equal(result[~missing], counts[~missing])  # what was held out is known again
    assert (result[missing] > 0).all()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    n_held_out = hold_out(CellReader(adata.X, adata.layers["hidden"])).nnz
    assert f"{n_held_out:,} observed entries in" in re.sub(r"\s+", " ", page)
    assert f"{missing.sum():,} entries are missing." in page
    assert f"{missing.sum():,} missing entries (mean)" in page


def test_zeros_are_imputed_from_all_that_was_observed(run, adata, tmp_path, dense):
    """The result is that of the model with the file's own counts, those held out included."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "adata.layers has no")  # marks of its own are nobody else's business
        assert run(*FAST, "--save-model", tmp_path / "model")[0] == 0
    result = dense(ad.read_h5ad(tmp_path / "out.h5ad").layers["imputed"])
    model = CountsDiffImputer.load(str(tmp_path / "model"), adata=False)
    np.testing.assert_array_equal(model.impute(adata.copy(), missing="zeros", inplace=False), result)


def test_held_out_entries_never_reach_training(adata):
    """Counts a thousand times as large where entries are held out: the model stays as it is, bit for bit."""
    chosen = hold_out(CellReader(adata.X, adata.layers["hidden"]), seed=3)
    spoilt = adata.copy()
    spoilt.X = np.where(chosen.toarray(), np.float32(1000), adata.X.toarray())
    training = Training(labels_key="kind", steps=20, seed=3, accelerator="cpu", quiet=True)
    layers = Layers(missing_layer="hidden")
    jobs = [_job.train(data, layers, training, "imputed", for_report=True) for data in (adata, spoilt)]
    for job in jobs:
        assert (job.held_out != chosen).nnz == 0
    states = [job.model.module.state_dict() for job in jobs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_page_is_written_whole_or_not_at_all(run, tmp_path, monkeypatch):
    def fail(self, text, **kwargs):
        self.write_bytes(b"half")
        raise OSError("No space left on device")

    page = tmp_path / "report.html"
    page.write_text("old")
    monkeypatch.setattr(Path, "write_text", fail)
    status, _, err = run(*FAST)
    assert (status, "report.html: No space left on device" in err) == (2, True)
    assert page.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad", "report.html"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("in.h5ad", (), "would overwrite the input"),
        ("out.h5ad", (), "name the same"),
        ("nowhere/report.html", (), "there is no folder"),
        ("report.html", ("--model", "somewhere"), "--report is for training a model"),
    ],
)
def test_what_cannot_be_is_said_before_training(run, tmp_path, name, options, says):
    status, _, err = run(*options, report=tmp_path / name)
    assert (status, says in err) == (2, True), err
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


def test_chosen_genes_alone_are_judged(run, tmp_path):
    assert run(*FAST, "--genes", 12)[0] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(r"60 cells × 1[0-9] genes", page)
    assert re.search(r"1[0-9] of 30, chosen by all counts", page)
