import errno
import json

import numpy as np
import pytest

from countsdiff import metrics


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

    def test_a_full_disk_is_told(self, run, files, tmp_path, monkeypatch):
        def write_text(*_args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("pathlib.Path.write_text", write_text)
        options = ("--missing-layer", "hidden", "--json", tmp_path / "scores.json")
        status, _, err = run("evaluate", "--truth", files[0], "--imputed", files[1], *options)
        assert status == 2
        assert f"{options[-1]}: writing failed (No space left on device); make room, or write elsewhere.\n" in err
        assert err.count("\n") == 1
        assert not list(tmp_path.glob("*scores*"))

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

    def test_counts_after_hiding_are_no_truth(self, run, save, files, adata):
        adata.X = adata.X.multiply(~adata.layers["hidden"].toarray()).tocsr()
        options = ("--imputed", files[1], "--missing-layer", "hidden")
        status, text, _ = run("evaluate", "--truth", save(adata, "after.h5ad"), *options)
        assert (status, "All true counts are 0: does after.h5ad have" in text) == (0, True)
        assert "All true counts are 0" not in run("evaluate", "--truth", files[0], *options)[1]

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

    def test_refuses_marks_that_are_none(self, run, save, files, adata):
        guess = files[2].copy()
        guess.layers["counts"] = adata.X
        path = save(guess, "counted.h5ad")
        status, _, err = run("evaluate", "--truth", files[0], "--imputed", path, "--missing-layer", "counts")
        assert (status, "layers['counts'] holds" in err, "must be boolean" in err) == (2, True, True)

    def test_refuses_infinite_predictions(self, run, save, files):
        guess = files[2].copy()
        guess.layers["imputed"] = np.where(np.asarray(guess.layers["hidden"].todense()), np.inf, 1.0)
        path = save(guess, "infinite.h5ad")
        status, _, err = run("evaluate", "--truth", files[0], "--imputed", path, "--missing-layer", "hidden")
        assert (status, "infinite for cell" in err, err.count("\n")) == (2, True, 1)

    def test_refuses_a_truth_that_is_no_counts(self, run, save, files, adata):
        truth = adata.copy()
        truth.X = np.log1p(np.asarray(truth.X) * 0.37)
        options = ("--truth", save(truth, "logged.h5ad"), "--imputed", files[1], "--missing-layer", "hidden")
        status, _, err = run("evaluate", *options)
        assert (status, "the truth.X is not a matrix of counts" in err, "looks normalised" in err) == (2, True, True)

    def test_refuses_to_write_onto_its_input(self, run, files):
        options = ("--truth", files[0], "--imputed", files[1], "--missing-layer", "hidden", "--json", files[0])
        assert run("evaluate", *options)[0] == 2
