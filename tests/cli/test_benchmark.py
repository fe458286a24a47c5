import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scvi

from countsdiff import datasets
from countsdiff.datasets import atlases

FAST = ("--genes", "40", "--methods", "gene_mean", "--task", "null")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """200 cells × 100 genes."""
    path = tmp_path_factory.mktemp("data") / "blood.h5ad"
    datasets.pbmc3k()[:200, :100].copy().write_h5ad(path)
    return path


@pytest.fixture
def run(run):
    """Run a benchmark by the command line; return its exit status, standard output and standard error."""
    return partial(run, "benchmark")


@pytest.mark.filterwarnings("ignore")
def test_writes_results_and_a_report_and_goes_on_where_it_stopped(run, source, tmp_path):
    out = tmp_path / "out"
    status, text, err = run(source, *FAST, "--seeds", "0", "--labels-key", "cell_type", "--out", out)
    assert status == 0, err
    assert "null: blood, gene_mean, seed 0" in err
    assert text == f"Wrote {out / 'report.html'}, the same as report.md, and {out / 'results.csv'}.\n"
    before = (out / "results.csv").read_text()
    status, _, err = run(source, *FAST, "--seeds", "0,1", "--labels-key", "cell_type", "--out", out)
    assert status == 0, err
    after = (out / "results.csv").read_text()
    assert after.startswith(before)
    table = pd.read_csv(out / "results.csv", keep_default_na=False)
    assert list(table) == ["task", "dataset", "mask", "method", "seed", "estimate", "metric", "value", "note"]
    assert set(table.method) == {"none", "gene_mean"}
    assert len(table) == 2 * 2 * 5
    report = (out / "report.md").read_text()
    assert f"countsdiff benchmark {source} --task null --methods gene_mean --seeds 0,1" in report
    assert "| blood | 200 | 40 | " in report
    record = json.loads((out / "benchmark.json").read_text())
    assert len(record["commands"]) == 2
    assert record["datasets"]["blood"]["n_vars"] == 40

    status, _, err = run(source, *FAST, "--genes", "30", "--out", out)
    assert status == 2
    assert "has results of another 'blood' (200 cells × 40 genes" in err
    assert err.count("\n") == 1


def test_a_mask_that_needs_genes_left_out_is_for_data_that_have_some(run, tmp_path):
    adata = datasets.pbmc3k()[:200]
    adata[:, (adata.X > 0).sum(0).A1 > 100].copy().write_h5ad(tmp_path / "blood.h5ad")
    options = (tmp_path / "blood.h5ad", "--methods", "gene_mean", "--out", tmp_path)
    status, _, err = run(*options, "--masks", "mcar10,mar25")
    assert (status, "all of blood were chosen; leave it out" in err) == (2, True)
    assert not (tmp_path / "results.csv").exists()


def test_a_method_that_there_is_not_leaves_no_folder(run, source, tmp_path):
    status, _, err = run(source, "--methods", "nonsense", "--out", tmp_path / "out")
    assert (status, "nonsense" in err, (tmp_path / "out").exists()) == (2, True, False)


@pytest.mark.filterwarnings("ignore")
def test_imputes_in_place(run, source, tmp_path, monkeypatch):
    whole = scvi.model.SCVI.train  # four hundred epochs, of which a few have latents, too
    monkeypatch.setattr(scvi.model.SCVI, "train", lambda self, **settings: whole(self, max_epochs=3, **settings))
    options = ("--design", "in_place", "--genes", 20, "--methods", "gene_mean", "--out", tmp_path)
    status, _, err = run(source, *options)
    assert status == 0, err
    table = pd.read_csv(tmp_path / "results.csv", keep_default_na=False)
    assert set(table.task) == {"imputation in_place"}
    assert set(table["mask"]) == {"mcar50"}
    assert {"rmse", "scfid", "peak_memory_mb"} <= set(table.metric)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--masks", "mcar33"), "there is no mask 'mcar33'; choose among mcar10, "),
        (("--methods", "dca"), "there is no method 'dca' for the task imputation; choose among countsdiff, "),
        (("--methods", "label_mean"), "label_mean needs labels; name the column"),
        (("--labels-key", "kind"), "blood.h5ad: adata.obs has no column 'kind'"),
        (("--seeds", "1,-2"), "--seeds 1,-2: seeds are whole numbers"),
        (("--seeds", "0,99999999999"), "seeds are at most 4294967295"),
        (("--seeds", ","), "--seeds ',' names none"),
        (("--methods", ""), "--methods '' names none"),
        (("--masks", ","), "--masks ',' names none"),
        (("--task", "null", "--masks", "mcar10"), "--masks is for --task imputation"),
        (("--task", "null", "--design", "paper"), "--design is for --task imputation"),
        (("--scvi-model", "nowhere"), "nowhere: there is no saved scVI model"),
        (("--task", "cluster"), "'cluster' is not one of"),
    ],
)
def test_says_in_one_sentence_what_is_wrong(run, source, tmp_path, options, message):
    status, _, err = run(source, "--out", tmp_path / "out", *options)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_says_which_data_there_are(run, source, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTSDIFF_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for arguments, message in {
        ("nowhere.h5ad",): "nowhere.h5ad: there is no such file, and no data set of this name; there are pbmc3k, fetal",
        ("fetal_atlas",): "fetal_atlas: not on this machine yet; --fetch downloads its 20 GB.",
        (source, source): "blood: two data sets have this name",
    }.items():
        status, _, err = run(*arguments)
        assert status == 2
        assert message in err
        assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_fetches_an_atlas(run, source, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTSDIFF_CACHE", str(tmp_path / "cache"))
    atlas = atlases.Atlas("heart_atlas", source.as_uri(), "1 MB", None, 200)
    monkeypatch.setitem(atlases.ATLASES, "heart_atlas", atlas)
    monkeypatch.setattr(datasets.heart_atlas, "__defaults__", (150,))
    status, _, err = run("heart_atlas", *FAST, "--fetch", "--out", tmp_path / "out")
    assert status == 0, err
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert record["datasets"]["heart_atlas"]["n_obs"] == 150
    offline = atlases.Atlas("fetal_atlas", "http://127.0.0.1:9/fetal.h5ad", "1 MB", None, 200)
    monkeypatch.setitem(atlases.ATLASES, "fetal_atlas", offline)
    status, _, err = run("fetal_atlas", *FAST, "--fetch", "--out", tmp_path / "out")
    assert status == 2
    assert "cannot be downloaded" in err
    assert np.array_equal([p.name for p in (tmp_path / "cache").iterdir()], ["heart_atlas.h5ad"])
