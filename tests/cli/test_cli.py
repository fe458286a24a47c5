import hashlib
import json
import os
import signal
import subprocess
import sys

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from countsdiff import CountsDiffImputer, __version__, datasets, metrics, pp
from countsdiff.cli import main
from countsdiff.cli._io import write
from countsdiff.layers import named_layers

FAST = ("--steps", "20", "--accelerator", "cpu")


@pytest.fixture
def adata():
    """60 cells of two kinds × 12 genes; one layer of missing entries, one that is not boolean."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], 30)
    rate = np.where(np.arange(12) % 2 == kind[:, None], 3.0, 0.5) * rng.gamma(4, 0.25, (60, 1))
    obs = pd.DataFrame({"kind": kind.astype(str)}, index=[f"cell{i}" for i in range(60)])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(12)])
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)
    adata.layers["hidden"] = sparse.csr_matrix(rng.random(adata.shape) < 0.4)
    return adata


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


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def imputed(run, source, out, *options, layer="imputed"):
    status, _, err = run("impute", source, "-o", out, *FAST, *options)
    assert status == 0, err
    return dense(ad.read_h5ad(out).layers[layer])


class TestImpute:
    def test_writes_the_input_and_one_layer_and_leaves_the_input_alone(self, run, save, adata, tmp_path):
        source, out = save(adata), tmp_path / "out.h5ad"
        before = digest(source)
        status, text, _ = run("impute", source, "-o", out, *FAST)
        assert status == 0
        assert digest(source) == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]
        result = ad.read_h5ad(out)
        assert set(named_layers(result)) == {"hidden", "imputed"}
        assert list(result.obs) == ["kind"]  # nothing of scvi-tools' book-keeping
        assert set(result.uns) == {"countsdiff"}
        assert (result.X != adata.X).nnz == 0
        n_zeros = adata.X.shape[0] * adata.X.shape[1] - adata.X.nnz
        assert f"Imputed {n_zeros:,} zeros of 60 cells × 12 genes (mean)" in text
        assert str(out) in text

    def test_missing_entries_alone_change_and_are_not_looked_at(self, run, save, adata, tmp_path):
        hidden = adata.layers["hidden"].toarray()
        result = imputed(run, save(adata), tmp_path / "a.h5ad", "--missing-layer", "hidden")
        assert (result[~hidden] == adata.X.toarray()[~hidden]).all()
        assert (result[hidden] > 0).all()
        spoilt = adata.copy()
        spoilt.X = np.where(hidden, np.float32(1000), adata.X.toarray())
        again = imputed(run, save(spoilt, "spoilt.h5ad"), tmp_path / "b.h5ad", "--missing-layer", "hidden")
        np.testing.assert_array_equal(again, result)

    def test_prefers_the_layer_counts_to_x(self, run, save, adata, tmp_path):
        expected = imputed(run, save(adata), tmp_path / "a.h5ad")
        adata.layers["counts"] = adata.X.copy()
        adata.X = adata.X / 7
        np.testing.assert_array_equal(imputed(run, save(adata), tmp_path / "b.h5ad"), expected)

    def test_same_seed_same_samples(self, run, save, adata, tmp_path):
        source = save(adata)
        options = ("--output", "sample", "--missing-layer", "hidden")
        first, second, other = (
            imputed(run, source, tmp_path / f"{i}.h5ad", *options, "--seed", seed) for i, seed in enumerate((1, 1, 2))
        )
        np.testing.assert_array_equal(first, second)
        assert (first != other).any()
        assert (first == np.round(first)).all()

    def test_goes_on_with_a_training(self, run, save, adata, tmp_path):
        source, checkpoint = save(adata), tmp_path / "training.ckpt"
        expected = imputed(run, source, tmp_path / "a.h5ad")
        for name in ("b.h5ad", "c.h5ad"):
            np.testing.assert_array_equal(imputed(run, source, tmp_path / name, "--resume", checkpoint), expected)
        status, _, err = run("impute", source, "-o", tmp_path / "d.h5ad", *FAST, "--resume", checkpoint, "--seed", 1)
        assert status == 2
        assert "training.ckpt: the training in there has seed 0, not 1" in " ".join(err.split())

    def test_writes_every_draw(self, run, save, adata, tmp_path):
        status, text, _ = run(
            "impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, "--output", "sample", "--n-samples", 2
        )
        assert status == 0
        assert "layers imputed_0 to imputed_1" in text
        assert {"imputed_0", "imputed_1"} <= set(ad.read_h5ad(tmp_path / "out.h5ad").layers)

    def test_quiet_says_nothing(self, run, save, adata, tmp_path):
        assert run("impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, "--quiet") == (0, "", "")

    def test_overwrites_an_older_output(self, run, save, adata, tmp_path):
        source = save(adata)
        (tmp_path / "out.h5ad").write_text("old")
        assert imputed(run, source, tmp_path / "out.h5ad").shape == adata.shape


class TestGenes:
    def test_other_genes_keep_their_counts(self, run, save, adata, tmp_path):
        source, out = save(adata), tmp_path / "out.h5ad"
        status, text, _ = run("impute", source, "-o", out, *FAST, "--genes", 5)
        assert status == 0
        chosen = pp.highly_variable(adata, 5)
        assert f"60 cells × {chosen.sum()} genes" in text
        assert f"The other {(~chosen).sum()} genes keep their counts." in text
        result, counts = dense(ad.read_h5ad(out).layers["imputed"]), adata.X.toarray()
        assert result.shape == adata.shape
        np.testing.assert_array_equal((result != counts).any(axis=0), chosen)
        assert (result[counts > 0] == counts[counts > 0]).all()

    def test_missing_entries_of_other_genes_stay_missing(self, run, save, adata, tmp_path):
        options = ("--genes", "5", "--missing-layer", "hidden")
        hidden, counts = adata.layers["hidden"].toarray(), adata.X.toarray()
        as_sparse = imputed(run, save(adata), tmp_path / "a.h5ad", *options)
        adata.X = counts
        as_dense = imputed(run, save(adata), tmp_path / "b.h5ad", *options)
        np.testing.assert_array_equal(as_sparse, as_dense)
        left_out = ~pp.highly_variable(ad.AnnData(np.where(hidden, np.float32(0), counts)), 5)
        assert left_out.any()
        np.testing.assert_array_equal(np.isnan(as_sparse), hidden & left_out)
        np.testing.assert_array_equal(as_sparse[~hidden], counts[~hidden])

    def test_stays_sparse_where_most_is_zero(self, run, save, tmp_path):
        counts = np.random.default_rng(0).poisson(0.05, (60, 200)).astype(np.float32)
        adata = ad.AnnData(sparse.csr_matrix(counts))
        assert run("impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, "--genes", 3)[0] == 0
        layer = ad.read_h5ad(tmp_path / "out.h5ad").layers["imputed"]
        assert sparse.issparse(layer)
        assert (layer.toarray()[counts > 0] == counts[counts > 0]).all()


class TestSavedModel:
    @pytest.fixture
    def trained(self, run, save, adata, tmp_path):
        """A saved model, and what it made of its training data."""
        options = ("--genes", "8", "--save-model", tmp_path / "model")
        result = imputed(run, save(adata), tmp_path / "trained.h5ad", *options)
        return tmp_path / "model", result

    def test_gives_the_same_result(self, run, save, adata, tmp_path, trained):
        model, expected = trained
        result = imputed_by(run, model, save(adata), tmp_path / "out.h5ad")
        np.testing.assert_array_equal(result, expected)

    def test_finds_its_genes_by_name_and_its_counts_anywhere(self, run, save, adata, tmp_path, trained):
        model, expected = trained
        other = adata[::-1, ::-1].copy()
        other.layers["raw"] = other.X.copy()
        other.X = other.X / 7
        result = imputed_by(run, model, save(other, "other.h5ad"), tmp_path / "out.h5ad", "--layer", "raw")
        np.testing.assert_array_equal(result[::-1, ::-1], expected)

    def test_hides_what_is_marked_as_missing(self, run, save, adata, tmp_path, trained):
        hidden = adata.layers["hidden"].toarray()
        results = []
        for value in (0, 50):
            adata.X = np.where(hidden, np.float32(value), dense(adata.X))
            source = save(adata, "other.h5ad")
            results.append(imputed_by(run, trained[0], source, tmp_path / "out.h5ad", "--missing-layer", "hidden"))
        np.testing.assert_array_equal(*results)

    def test_says_which_gene_is_absent(self, run, save, adata, tmp_path, trained):
        source = save(adata[:, :3].copy(), "few.h5ad")
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad", "--model", trained[0])
        assert status == 2
        assert "few.h5ad" in err
        assert "genes the model was trained on" in err

    def test_takes_no_options_of_training(self, run, save, adata, tmp_path):
        status, _, err = run("impute", save(adata), "-o", tmp_path / "o.h5ad", "--model", tmp_path, "--steps", 5)
        assert (status, "--steps is for training" in err) == (2, True)

    def test_has_to_be_there(self, run, save, adata, tmp_path):
        status, _, err = run("impute", save(adata), "-o", tmp_path / "o.h5ad", "--model", tmp_path / "nowhere")
        assert (status, "there is no saved model" in err) == (2, True)

    @pytest.mark.parametrize(
        ("name", "damage", "says"),
        [
            ("model.json", lambda data: data[:99], "model.json: this file cannot be used"),
            ("model.json", lambda data: data.replace(b'"gene1"', b'"genex"'), "changed after it was written"),
            (
                "model.json",
                lambda data: data.replace(b'"format_version": 2', b'"format_version": 9'),
                "upgrade countsdiff",
            ),
            ("model.safetensors", lambda data: data[:-1], "model.safetensors: this file cannot be used"),
            ("model.safetensors", lambda data: b"", "model.safetensors: this file cannot be used"),
        ],
    )
    def test_that_is_damaged_is_named_in_one_sentence(self, run, save, adata, tmp_path, trained, name, damage, says):
        file = trained[0] / name
        file.write_bytes(damage(file.read_bytes()))
        status, text, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad", "--model", trained[0])
        assert (status, text, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"countsdiff: error: {file.parent}")
        assert says in err
        assert not (tmp_path / "out.h5ad").exists()

    def test_in_a_pickle_is_not_opened(self, run, save, adata, tmp_path):
        (tmp_path / "model.pt").write_bytes(b"cos\nsystem\n(S'echo pwned'\ntR.")
        status, _, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad", "--model", tmp_path)
        assert (status, "model.pt: this is a model of scvi-tools" in err, err.count("\n")) == (2, True, 1)

    def test_that_cannot_impute_a_file_says_so(self, run, save, adata, tmp_path):
        CountsDiffImputer(adata.copy(), width=8).save(tmp_path / "untrained")
        mdata = mudata.MuData({"rna": adata.copy(), "prot": adata[:, :3].copy()})
        CountsDiffImputer.setup_mudata(mdata)
        CountsDiffImputer(mdata, width=8).save(tmp_path / "joint")
        for name, says in (("untrained", "saved before it was trained"), ("joint", "a model of several modalities")):
            status, _, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad", "--model", tmp_path / name)
            assert (status, says in err, err.count("\n")) == (2, True, 1)

    def test_is_not_saved_over_another_one(self, run, save, adata, tmp_path):
        status, _, err = run("impute", save(adata), "-o", tmp_path / "o.h5ad", "--save-model", tmp_path)
        assert (status, "exists already" in err) == (2, True)


def imputed_by(run, model, source, out, *options):
    status, _, err = run("impute", source, "-o", out, "--model", model, *options)
    assert status == 0, err
    return dense(ad.read_h5ad(out).layers["imputed"])


class TestBadInput:
    """Exit status 2, one sentence on standard error, nothing written, the input as it was."""

    @pytest.fixture
    def refuse(self, run, save, tmp_path):
        def refuse(adata, *options, says):
            source, out = save(adata), tmp_path / "out.h5ad"
            before = digest(source)
            status, text, err = run("impute", source, "-o", out, *FAST, *options)
            assert (status, text) == (2, "")
            assert err.startswith("countsdiff: error: ")
            assert err.count("\n") == 1
            for word in says:
                assert word in err
            assert digest(source) == before
            assert [p.name for p in tmp_path.iterdir()] == [source.name]

        return refuse

    def test_negative_count(self, refuse, adata):
        adata.X[7, 3] = -2
        refuse(adata, says=["in.h5ad", "adata.X", "'cell7'", "'gene3'", "negative"])
        refuse(adata, "--genes", 5, says=["in.h5ad", "adata.X", "'cell7'", "'gene3'", "negative"])

    def test_normalised_matrix(self, refuse, adata):
        adata.X = np.log1p(adata.X.toarray() / 3)
        refuse(adata, says=["in.h5ad", "normalised"])

    def test_no_such_layer(self, refuse, adata):
        refuse(adata, "--layer", "cuonts", says=["in.h5ad", "'cuonts'", "'hidden'"])

    def test_no_such_missing_layer(self, refuse, adata):
        refuse(adata, "--missing-layer", "hiden", says=["in.h5ad", "'hiden'", "'hidden'"])
        refuse(adata, "--missing-layer", "hiden", "--genes", 5, says=["in.h5ad", "'hiden'", "'hidden'"])

    def test_no_such_column(self, refuse, adata):
        refuse(adata, "--batch-key", "bach", says=["in.h5ad", "'bach'", "'kind'"])

    def test_result_in_place_of_what_it_is_made_from(self, refuse, adata):
        adata.layers["counts"] = adata.X.copy()
        for key in ("counts", "hidden"):
            options = ("--missing-layer", "hidden", "--key-added", key)
            refuse(adata, *options, says=[f"would overwrite layers['{key}']"])

    def test_no_cells(self, refuse, adata):
        refuse(adata[:0].copy(), says=["in.h5ad", "empty"])

    def test_unknown_option(self, refuse, adata):
        refuse(adata, "--laier", "x", says=["--laier"])

    def test_unknown_output(self, refuse, adata):
        refuse(adata, "--output", "mode", says=["mode", "median"])

    def test_several_samples_of_a_mean(self, refuse, adata):
        refuse(adata, "--n-samples", 3, says=["--n-samples 3", "--output sample"])

    def test_no_folder_to_write_to(self, run, save, adata, tmp_path):
        status, _, err = run("impute", save(adata), "-o", tmp_path / "no" / "out.h5ad")
        assert (status, "there is no folder" in err) == (2, True)

    def test_folder_as_output(self, run, save, adata, tmp_path):
        status, _, err = run("impute", save(adata), "-o", tmp_path)
        assert (status, "is a folder" in err) == (2, True)

    @pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
    def test_output_onto_input(self, run, save, adata, tmp_path, link):
        source = save(adata)
        before, out = digest(source), source
        if link is not None:
            out = tmp_path / "link.h5ad"
            getattr(out, link)(source)
        status, _, err = run("impute", source, "-o", out, *FAST)
        assert (status, "would overwrite the input" in err) == (2, True)
        assert digest(source) == before

    def test_no_such_file(self, run, tmp_path):
        status, _, err = run("impute", tmp_path / "none.h5ad", "-o", tmp_path / "out.h5ad")
        assert (status, "none.h5ad: there is no such file" in err) == (2, True)

    def test_not_an_h5ad_file(self, run, tmp_path):
        source = tmp_path / "in.h5ad"
        source.write_text("gene,count\n")
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad")
        assert (status, "not an .h5ad file" in err) == (2, True)

    def test_truncated_file(self, run, save, adata, tmp_path):
        source = save(adata)
        source.write_bytes(source.read_bytes()[:-2000])
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad")
        assert (status, "truncated" in err, err.count("\n")) == (2, True, 1)

    @pytest.mark.parametrize("options", [(), ("--workers", 1)])
    def test_strings_without_end(self, run, save, adata, tmp_path, options):
        source = save(adata)
        data = bytearray(source.read_bytes())
        at = data.index(b"GCOL")  # a heap of strings: 16 bytes, then objects of 16 bytes and their padded content
        end = at + int.from_bytes(data[at + 8 : at + 16], "little")
        at += 16
        while at < end and data[at : at + 2] != b"\0\0":
            at += 16 + -(-int.from_bytes(data[at + 8 : at + 16], "little") // 8) * 8
        data[at + 8 : at + 16] = bytes(8)  # free space of no size, from which HDF5 2.0 gets no further
        source.write_bytes(data)
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad", "--save-model", tmp_path / "m", *options)
        assert (status, "HDF5 never comes to its end" in err, err.count("\n")) == (2, True, 1)

    def test_that_crashes_hdf5(self, run, save, adata, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "countsdiff.cli._probe._read_strings", lambda path, limit: os.kill(os.getpid(), signal.SIGSEGV)
        )
        status, _, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad")
        assert (status, "HDF5 crashes on it" in err, err.count("\n")) == (2, True, 1)

    @pytest.mark.parametrize("name", ["X", "layers/hidden"])
    def test_sparse_matrix_with_more_indices_than_values(self, run, save, adata, tmp_path, name):
        source = save(adata)
        with h5py.File(source, "r+") as file:
            del file[name]["indices"]
            file[name].create_dataset("indices", shape=(2**50,), dtype=np.int32, chunks=(100,))
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad")
        assert (status, f"{2**50} indices" in err, err.count("\n")) == (2, True, 1)


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


class TestEvaluate:
    @pytest.fixture
    def files(self, save, adata):
        """The truth, and a guess at it."""
        guess = adata.copy()
        guess.layers["imputed"] = np.random.default_rng(1).gamma(2, 1, adata.shape).astype(np.float32)
        return save(adata, "truth.h5ad"), save(guess, "guess.h5ad"), guess

    def test_agrees_with_metrics(self, run, files, adata, tmp_path):
        truth, path, guess = files
        options = ("--missing-layer", "hidden", "--json", tmp_path / "scores.json")
        status, text, _ = run("evaluate", "--truth", truth, "--imputed", path, *options)
        assert status == 0
        expected = metrics.evaluate(adata.X, guess.layers["imputed"], adata.layers["hidden"])
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert {name: scores[name] for name in expected} == expected
        assert scores["n_entries"] == adata.layers["hidden"].nnz
        assert f"{expected['r2']:.4f}" in text
        guess.write_zarr(tmp_path / "guess.zarr")
        adata.write_zarr(tmp_path / "truth.zarr")
        stores = ("--truth", tmp_path / "truth.zarr", "--imputed", tmp_path / "guess.zarr", "--key-added", "imputed")
        assert run("evaluate", *stores, "--missing-layer", "hidden")[1] == text.replace(".h5ad", ".zarr")
        assert run("evaluate", *stores, "--missing-layer", "nowhere")[0] == 2

    def test_matches_cells_and_genes_by_name(self, run, save, files, tmp_path, adata):
        _, path, _ = files
        shuffled = save(adata[::-1, ::-1].copy(), "shuffled.h5ad")
        scores = []
        for i, truth in enumerate((files[0], shuffled)):
            file = tmp_path / f"{i}.json"
            assert (
                run("evaluate", "--truth", truth, "--imputed", path, "--missing-layer", "hidden", "--json", file)[0]
                == 0
            )
            scores.append(json.loads(file.read_text()) | {"truth": None})
        assert scores[0] == scores[1]

    def test_leaves_out_what_was_not_imputed_and_says_so(self, run, save, files, adata):
        truth, _, guess = files
        hidden = adata.layers["hidden"].toarray()
        guess.layers["imputed"][:, 0] = np.nan
        status, text, _ = run("evaluate", "--truth", truth, "--imputed", save(guess), "--missing-layer", "hidden")
        assert status == 0
        assert f"{hidden[:, 1:].sum():,} hidden entries" in text
        assert f"{hidden[:, 0].sum():,} more were not imputed" in " ".join(text.split())

    def test_refuses_other_cells(self, run, save, files, adata):
        truth = save(adata[5:].copy(), "less.h5ad")
        status, _, err = run("evaluate", "--truth", truth, "--imputed", files[1], "--missing-layer", "hidden")
        assert status == 2
        assert "less.h5ad: this file lacks 5 of the 60 imputed cells, for example 'cell0'" in err

    def test_refuses_a_layer_that_is_not_there(self, run, files):
        options = ("--truth", files[0], "--imputed", files[1], "--missing-layer", "hidden")
        for extra in (("--key", "nope"), ("--layer", "nope"), ("--missing-layer", "nope")):
            status, _, err = run("evaluate", *options, *extra)
            assert (status, "'nope'" in err) == (2, True)

    def test_refuses_to_write_onto_its_input(self, run, files):
        options = ("--truth", files[0], "--imputed", files[1], "--missing-layer", "hidden", "--json", files[0])
        assert run("evaluate", *options)[0] == 2


def test_demo_compares_with_the_baselines_and_writes_both_files(run, tmp_path, monkeypatch):
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


def test_zarr_and_workers_give_what_memory_gives(run, save, tmp_path, adata):
    source = save(adata)
    adata.write_zarr(tmp_path / "in.zarr")
    options = ("--missing-layer", "hidden", "--output", "sample")
    status, out, _ = run(
        "impute", tmp_path / "in.zarr", "-o", tmp_path / "a.zarr", *options, "--save-model", tmp_path / "m", *FAST, "-q"
    )
    assert (status, out) == (0, "")
    assert run("impute", source, "-o", tmp_path / "b.h5ad", *options, "--model", tmp_path / "m")[0] == 0
    status, out, _ = run(
        "impute", source, "-o", tmp_path / "c.h5ad", *options, "--model", tmp_path / "m", "--workers", 1
    )
    assert status == 0
    assert "missing entries of 60 cells × 12 genes (sample)" in out
    results = [ad.read_zarr(tmp_path / "a.zarr"), *(ad.read_h5ad(tmp_path / f"{name}.h5ad") for name in "bc")]
    for result in results[1:]:
        np.testing.assert_array_equal(dense(result.layers["imputed"]), dense(results[0].layers["imputed"]))
        assert result.uns["countsdiff"]["imputed"] == results[0].uns["countsdiff"]["imputed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", 1), "--save-model"),
        (("--key-added", "a/b"), "without slashes"),
        (("--workers", 1, "--save-model", "m", "--genes", 5), "--genes needs all data in memory"),
        (("--workers", 1, "--report", "r.html"), "--report needs all data in memory"),
        (("--workers", 1, "--model", "nix"), "nix: there is no saved model"),
    ],
)
def test_what_data_on_disk_do_not_go_with(run, save, tmp_path, adata, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    save(adata)
    status, out, error = run("impute", "in.h5ad", "-o", "out.h5ad", *options)
    assert (status, out) == (2, "")
    assert message in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad"]


def test_the_output_has_the_format_of_the_input(run, save, tmp_path, adata):
    status, _, error = run("impute", save(adata), "-o", tmp_path / "out.zarr")
    assert status == 2
    assert ".h5ad" in error


def test_a_training_on_disk_is_resumed_as_one_in_memory(run, save, tmp_path, adata):
    source = save(adata)
    options = ("--workers", 1, "--resume", tmp_path / "checkpoint", *FAST, "-q")
    for name in "ab":
        status, _, error = run(
            "impute", source, "-o", tmp_path / f"{name}.h5ad", "--save-model", tmp_path / f"model_{name}", *options
        )
        assert (status, error) == (0, "")
        assert (tmp_path / "checkpoint").is_file()
    results = [ad.read_h5ad(tmp_path / f"{name}.h5ad").layers["imputed"] for name in "ab"]
    np.testing.assert_array_equal(*map(dense, results))
