import anndata as ad
import mudata
import numpy as np
import pytest

from countsdiff import CountsDiffImputer


class TestSavedModel:
    @pytest.fixture
    def trained(self, imputed, save, adata, tmp_path):
        """A saved model, and what it made of its training data."""
        options = ("--genes", "8", "--save-model", tmp_path / "model")
        result = imputed(save(adata), tmp_path / "trained.h5ad", *options)
        return tmp_path / "model", result

    def test_gives_the_same_result(self, save, adata, tmp_path, trained, imputed_by):
        model, expected = trained
        result = imputed_by(model, save(adata), tmp_path / "out.h5ad")
        np.testing.assert_array_equal(result, expected)

    def test_finds_its_genes_by_name_and_its_counts_anywhere(self, save, adata, tmp_path, trained, imputed_by):
        model, expected = trained
        other = adata[::-1, ::-1].copy()
        other.layers["raw"] = other.X.copy()
        other.X = other.X / 7
        result = imputed_by(model, save(other, "other.h5ad"), tmp_path / "out.h5ad", "--layer", "raw")
        np.testing.assert_array_equal(result[::-1, ::-1], expected)

    def test_hides_what_is_marked_as_missing(self, save, adata, tmp_path, trained, imputed_by, dense):
        hidden = adata.layers["hidden"].toarray()
        results = []
        for value in (0, 50):
            adata.X = np.where(hidden, np.float32(value), dense(adata.X))
            source = save(adata, "other.h5ad")
            results.append(imputed_by(trained[0], source, tmp_path / "out.h5ad", "--missing-layer", "hidden"))
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

    @pytest.mark.parametrize("workers", [(), ("--workers", 1)])
    @pytest.mark.parametrize(
        ("options", "says"),
        [(("--accelerator", "cuda"), "CUDA"), (("--missing-layer", "zeros"), "zeros")],
    )
    def test_obeys_options_of_imputation(self, run, save, adata, tmp_path, trained, workers, options, says):
        out = tmp_path / "out.h5ad"
        status, _, err = run("impute", save(adata), "-o", out, "--model", trained[0], *options, *workers)
        assert (status, says in err, out.exists()) == (2, True, False)

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
                lambda data: data.replace(b'"format_version": ', b'"format_version": 9'),
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
        for options in ((), ("--workers", 1)):
            status, _, err = run("impute", save(adata), "-o", tmp_path / "o.h5ad", "--save-model", tmp_path, *options)
            assert (status, "exists already" in err, "use it by --model" in err) == (2, True, True)

    def test_is_used_where_a_run_was_cut_short_after_its_training(self, run, save, adata, tmp_path, monkeypatch):
        command = ("impute", save(adata), "-o", tmp_path / "out.h5ad", "--save-model", tmp_path / "model")
        options = ("--workers", 1, "--steps", 2, "--labels-key", "kind", "--missing-layer", "hidden")

        def cut_short(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("countsdiff.distributed._impute.Plan.make", cut_short)
            assert run(*command, *options)[0] == 130
        before = (tmp_path / "model" / "model.json").stat().st_mtime_ns
        assert run(*command, *options)[0] == 0
        assert (tmp_path / "model" / "model.json").stat().st_mtime_ns == before
        assert "imputed" in ad.read_h5ad(tmp_path / "out.h5ad").layers
