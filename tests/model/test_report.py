import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from countsdiff import CountsDiffImputer, baselines, metrics, pp
from countsdiff.counts import CellReader
from countsdiff.model.hold_out import hold_out


@pytest.fixture(scope="module")
def held_out(make_adata):
    """A tenth of the entries of data as `make_adata()` makes them."""
    return np.random.default_rng(5).random(make_adata().shape) < 0.1


@pytest.fixture(scope="module")
def model(make_adata, held_out, train):
    """A model that saw all but the entries held out, whose counts are still there."""
    adata = make_adata()
    adata.layers["held_out"] = sparse.csr_matrix(held_out)
    return train(adata, missing_layer="held_out", labels_key="kind", batch_key="batch")


@pytest.fixture(scope="module")
def reported(model, tmp_path_factory):
    """The page, and its findings."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    findings = model.report(path, held_out="held_out", details={"who": "me"})
    return path.read_text(encoding="utf-8"), findings


class TestNumbers:
    """Findings against what public functions say of the same entries."""

    def test_scores(self, model, reported, held_out):
        counts = model.adata.X.toarray()
        ours = model.impute(missing=held_out, inplace=False)
        rivals = [baselines.get_baseline(n).impute(counts, held_out) for n in ("size_factor_mean", "knn")]
        for score, predicted in zip(reported[1].scores, [ours, *rivals], strict=True):
            expected = metrics.evaluate(counts, predicted, held_out)
            for name in ("r2", "rmse", "poisson_loss", "spearman_per_cell"):
                assert getattr(score, name) == pytest.approx(expected[name], rel=1e-5)
            assert f'<td class="t">{score.method}</td>' in reported[0]
            assert f"{expected['rmse']:.4f}</td>" in reported[0]

    def test_intervals(self, model, reported, held_out):
        result = model.impute(missing=held_out, inplace=False, interval=0.9)
        truth = model.adata.X.toarray()[held_out]
        expected = metrics.interval_coverage(
            truth, result["imputed_lower"][held_out], result["imputed_upper"][held_out]
        )
        assert reported[1].calibration.coverage == expected
        assert reported[1].calibration.relative_bias == pytest.approx(
            result["imputed"][held_out].sum(dtype=float) / truth.sum() - 1, rel=1e-5
        )

    def test_zeros(self, model, reported, held_out):
        # known again what was held out, as it is when the user imputes
        full = model.adata.copy()
        del full.layers["held_out"]
        imputed = model.impute(full, missing="zeros", inplace=False)
        zero = full.X.toarray() == 0
        for label in reported[1].labels:
            cells = (full.obs["kind"] == label.label).to_numpy()
            assert label.n_cells == cells.sum()
            assert label.n_zeros == zero[cells].sum()
            assert label.n_filled == (zero & (imputed >= 0.5))[cells].sum()
        assert {label.label for label in reported[1].labels} == {"a", "b"}

    def test_data_and_settings(self, model, reported):
        page, findings = reported
        counts = model.adata.X.toarray()
        assert findings.data.n_missing == 0
        assert findings.data.share_zeros == (counts == 0).mean()
        assert findings.settings["who"] == "me"
        assert "scvi-tools" in findings.settings["versions"]
        assert re.search(r"<td[^>]*>who</td><td[^>]*>me</td>", page)

    def test_null_check_looks_at_every_output(self, reported):
        null = reported[1].null
        assert [o.output for o in null.outputs] == ["counts", "mean", "log_mean", "sample"]
        assert null.outputs[0].permuted == pytest.approx(null.chance, rel=0.25)
        assert all(0 <= o.permuted <= 1 for o in null.outputs)


class TestWhichEntries:
    def test_entries_trained_on_are_refused(self, model, make_adata, held_out, tmp_path):
        with pytest.raises(ValueError, match="trained on entries to score, for example cell 'cell"):
            model.report(tmp_path / "r.html")
        cell, gene = np.argwhere(~held_out)[777]
        more = held_out.copy()
        more[cell, gene] = True
        with pytest.raises(ValueError, match=f"cell 'cell{cell}', gene 'gene{gene}'"):
            model.report(tmp_path / "r.html", held_out=more)
        with pytest.raises(ValueError, match="names of their own"):
            model.report(tmp_path / "r.html", make_adata())
        assert not (tmp_path / "r.html").exists()

    def test_cells_never_seen_need_no_marks(self, model, make_adata, tmp_path):
        other = make_adata(seed=1)
        other.obs_names = [f"new{i}" for i in range(other.n_obs)]
        shuffled = other[:, ::-1].copy()
        findings = model.report(tmp_path / "a.html", other)
        n = len(findings.held_out.truth)
        assert abs(n - 0.05 * other.n_obs * other.n_vars) < 4 * np.sqrt(0.05 * 2700)
        chosen = hold_out(CellReader(other.X))
        counts = other.X.toarray()
        np.testing.assert_array_equal(findings.held_out.truth, counts[chosen.toarray()])
        same = model.report(tmp_path / "b.html", shuffled, held_out=chosen[:, ::-1])
        assert same.scores[0] == findings.scores[0]

    def test_hidden_counts_may_be_elsewhere(self, model, reported, make_adata, held_out, tmp_path):
        full = make_adata()  # without the layer of marks
        assert model.report(tmp_path / "r.html", full, held_out=held_out).scores == reported[1].scores

    def test_counts_that_are_gone_are_refused(self, model, make_adata, held_out, tmp_path):
        gone = make_adata()
        gone.X = np.where(held_out, 0, gone.X.toarray())
        with pytest.raises(ValueError, match="set to 0 when they were hidden"):
            model.report(tmp_path / "r.html", gone, held_out=held_out)
        gone.X = np.where(held_out, np.nan, make_adata().X.toarray())
        with pytest.raises(ValueError, match="is NaN"):
            model.report(tmp_path / "r.html", gone, held_out=held_out)
        with pytest.raises(ValueError, match="0 entries are held out"):
            model.report(tmp_path / "r.html", held_out=np.zeros_like(held_out))
        with pytest.raises(KeyError, match="no 'held'"):
            model.report(tmp_path / "r.html", held_out="held")

    def test_a_model_without_its_data_says_that_it_could_not_check(
        self, model, reported, make_adata, held_out, tmp_path
    ):
        model.save(str(tmp_path / "model"))
        loaded = CountsDiffImputer.load(str(tmp_path / "model"), adata=False)
        findings = loaded.report(tmp_path / "r.html", make_adata(), held_out=held_out)
        assert not findings.checked
        assert 'data-name="unchecked"' in (tmp_path / "r.html").read_text(encoding="utf-8")
        assert reported[1].checked
        assert findings.scores == reported[1].scores

    def test_what_a_model_predicts_is_not_what_it_was_trained_on(self, model, make_adata, tmp_path):
        model.save(str(tmp_path / "model"))
        loaded = CountsDiffImputer.load(str(tmp_path / "model"), adata=False)
        other = make_adata(seed=1)
        other.obs_names = [f"new{i}" for i in range(other.n_obs)]
        expected = loaded.report(tmp_path / "r.html", other).scores
        loaded.impute(other)
        assert loaded.adata is None
        findings = loaded.report(tmp_path / "r.html", other)
        assert (findings.checked, findings.scores) == (False, expected)

    def test_what_a_reference_has_seen_is_not_known(self, model, make_adata, tmp_path):
        other = make_adata(seed=1)
        other.obs_names = [f"new{i}" for i in range(other.n_obs)]
        query = CountsDiffImputer.load_query_data(other, model)  # which learns from these cells, and
        with pytest.raises(ValueError, match="trained on entries to score"):
            query.report(tmp_path / "r.html")
        assert not query.report(tmp_path / "r.html", make_adata()).checked  # which its reference has seen

    def test_a_query_that_was_not_looked_at_may_be_scored(self, model, make_adata, tmp_path):
        queries = {}
        for adapt_means in (True, False):
            queries[adapt_means] = CountsDiffImputer.load_query_data(make_adata(), model, adapt_means=adapt_means)
        assert not queries[False].report(tmp_path / "r.html").checked
        with pytest.raises(ValueError, match="trained on entries to score"):
            queries[True].report(tmp_path / "r.html")
        queries[False].train(3, enable_progress_bar=False, accelerator="cpu")
        with pytest.raises(ValueError, match="trained on entries to score"):
            queries[False].report(tmp_path / "r.html")

    def test_too_many_cells_are_looked_at_in_part(self, model, reported, tmp_path, monkeypatch):
        monkeypatch.setattr("countsdiff.model.hold_out._MAX_ENTRIES", 0)
        monkeypatch.setattr("countsdiff.model.hold_out._MIN_CELLS", 40)
        findings = model.report(tmp_path / "r.html", held_out="held_out")
        whole = reported[1].held_out
        some = np.isin(whole.rows, np.unique(whole.rows)[::3])
        np.testing.assert_array_equal(findings.held_out.truth, whole.truth[some])
        np.testing.assert_array_equal(findings.held_out.mean, whole.mean[some])
        assert findings.data == reported[1].data
        note = "The simple methods saw these"
        assert note in (tmp_path / "r.html").read_text(encoding="utf-8")
        assert note not in reported[0]

    def test_missing_entries_are_not_held_out(self, make_adata):
        adata = make_adata()
        missing = np.random.default_rng(2).random(adata.shape) < 0.5
        chosen = hold_out(CellReader(adata.X, missing), seed=1).toarray()
        assert chosen.any()
        assert not (chosen & missing).any()

    def test_a_mask_of_the_same_seed_leaves_as_many_to_hold_out(self, make_adata):
        adata = make_adata(200, 60)
        missing = pp.mcar(adata.shape, 0.2, seed=0)
        chosen = hold_out(CellReader(adata.X, missing), seed=0)
        assert chosen.nnz == pytest.approx(0.05 * (~missing).sum(), rel=0.1)

    def test_too_few_entries_are_an_error_before_training(self, make_adata):
        with pytest.raises(ValueError, match="too few to judge anything by; leave the report out"):
            hold_out(CellReader(make_adata(3, 30).X))


def test_there_has_to_be_a_folder(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*create it first"):
        model.report(tmp_path / "none" / "report.html", held_out="held_out")


def test_the_page_is_that_of_the_findings(reported):
    from countsdiff import report

    page, findings = reported
    assert report.render(replace(findings)) == page


def test_scaled_counts_are_suspected(reported, make_adata, held_out, train, tmp_path):
    adata = make_adata()
    adata.X = adata.X * 3
    adata.layers["held_out"] = held_out
    train(adata, 5, missing_layer="held_out").report(tmp_path / "r.html", held_out="held_out")
    assert 'data-name="normalised"' in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'data-name="normalised"' not in reported[0]
    assert 'data-name="few_cells"' in reported[0]  # ninety
