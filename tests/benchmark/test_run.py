import dataclasses
import os
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from countsdiff.benchmark import MASKS, Imputation, MolecularCV, Null, Results, run, write_report
from countsdiff.benchmark._latents import _seeded
from countsdiff.benchmark._results import PEAK_MEMORY, Unit
from countsdiff.benchmark._subprocess import predict_in_subprocess
from countsdiff.benchmark.interfaces import Cells, Query, Score, Split

pytestmark = pytest.mark.filterwarnings("ignore")
POINT = {"rmse", "mae", "bias", "r2", "poisson_loss", "spearman_per_cell"}
INTERVALS = {"rmse_low", "rmse_high", "spearman_per_cell_low", "spearman_per_cell_high"}
WHOLE = {"mmd", "energy_distance", "sliced_wasserstein", "correlation_error", "scfid"}
COSTS = {"fit_seconds", "impute_seconds", "peak_memory_mb"}


def value(table, metric, estimate="mean", **where):
    for key, wanted in where.items():
        table = table[table[key] == wanted]
    rows = table[(table.metric == metric) & (table.estimate == estimate)]
    assert len(rows) == 1
    return rows.value.item()


@pytest.fixture
def query(data):
    return Query("mcar50", Cells(data.counts, None, data.labels), data.counts)


class TestImputation:
    def test_a_perfect_method_has_no_error_by_any_estimate(self, data, latents, fakes, results):
        task = Imputation(latents, ("mcar50", "mar_block25"))
        run(task, [data], [fakes.Fake(data.counts)], [3], results)
        table = results.table()
        for mask in task.masks:
            for estimate in ("mean", "whole counts", "1 sample", "5 samples"):
                for metric in ("rmse", "rmse_high", "mae", "bias"):
                    assert value(table, metric, estimate, mask=mask) == 0
                assert value(table, "r2", estimate, mask=mask) == 1
                assert value(table, "spearman_per_cell_low", estimate, mask=mask) == pytest.approx(1)
            assert value(table, "correlation_error", "1 sample", mask=mask) == 0
            assert value(table, "sliced_wasserstein", "1 sample", mask=mask) == 0
            assert value(table, "scfid", "1 sample", mask=mask) == pytest.approx(0, abs=1e-9)

    def test_every_unit_has_its_rows_and_nothing_else(self, data, latents, fakes, results):
        task = Imputation(latents, ("mcar10", "mnar_high25"))
        run(task, [data], [fakes.Fake(data.counts), fakes.Sampler(data.counts, "sampler")], [0, 1], results)
        table = results.table()
        units = table.groupby(["task", "dataset", "mask", "method", "seed"])
        assert len(units) == 2 * 2 * 2
        for unit, rows in units:
            found = {estimate: set(group.metric) for estimate, group in rows.groupby("estimate")}
            assert found == {
                "mean": POINT | INTERVALS,
                "whole counts": POINT | INTERVALS,
                "1 sample": POINT | INTERVALS | WHOLE,
                "5 samples": POINT | INTERVALS,
                "": COSTS | ({"sample_seconds"} if unit[3] == "sampler" else set()),
            }
            assert rows.value.notna().all()
            assert not rows.duplicated(["estimate", "metric"]).any()

    def test_estimates_are_the_mean_whole_counts_one_draw_and_the_mean_of_five(self, data, latents, fakes, results):
        run(Imputation(latents, ("mcar50",)), [data], [fakes.Sampler(data.counts, "sampler")], [0], results)
        table = results.table()
        estimates = ("mean", "whole counts", "1 sample", "5 samples")
        assert [value(table, "bias", estimate) for estimate in estimates] == pytest.approx([7, 3, 2, 1.2])
        assert not table.note.any()

    def test_without_whole_counts_the_mean_is_rounded(self, data, latents, fakes, results):
        run(Imputation(latents, ("mcar50",)), [data], [fakes.Fractional(data.counts)], [0], results)
        biases = [value(results.table(), "bias", estimate) for estimate in ("mean", "whole counts")]
        assert biases == pytest.approx([0.4, 0], abs=1e-6)

    def test_says_where_the_mean_stands_in_for_samples(self, data, latents, fakes, results):
        run(Imputation(latents, ("mcar50",)), [data], [fakes.Fake(data.counts)], [0], results)
        notes = results.table().groupby("estimate").note.unique()
        assert list(notes["mean"]) == [""]
        assert "mean stands in" in notes["1 sample"].item()
        assert "mean stands in" in notes["5 samples"].item()

    def test_the_paper_s_design_fits_once_to_complete_cells_and_hides_in_the_others(self, data, latents):
        task = Imputation(latents)
        (split,) = task.splits(data, list(task.masks), seed=0)
        assert [query.mask for query in split.queries] == list(MASKS)
        assert split.seen.counts.shape == (48, 20)
        assert split.seen.missing is None
        for query in split.queries:
            cells = query.cells
            assert cells.counts.shape == (12, 20)
            assert not cells.counts[cells.missing].any()
            np.testing.assert_array_equal(cells.counts[~cells.missing], query.truth[~cells.missing])
        together = np.vstack([split.seen.counts, split.queries[0].truth])
        np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(data.counts, axis=0))
        shares = {q.mask: q.cells.missing.mean() for q in split.queries}
        assert shares == pytest.approx({mask: int("".join(filter(str.isdigit, mask))) / 100 for mask in MASKS}, abs=0.1)

    def test_in_place_fits_what_it_imputes(self, data, latents):
        splits = list(Imputation(latents, ("mcar50", "mcar75"), "in_place").splits(data, ["mcar50", "mcar75"], seed=2))
        assert len(splits) == 2
        for split in splits:
            assert split.queries[0].cells is split.seen
            assert split.seen.counts.shape == data.counts.shape
        np.testing.assert_array_equal(splits[0].seen.missing, np.random.default_rng(2).random(data.counts.shape) <= 0.5)

    def test_misspelt_settings_are_refused(self, latents):
        with pytest.raises(ValueError, match="design is 'inplace'"):
            Imputation(latents, design="inplace")
        with pytest.raises(ValueError, match="no mask 'mcar11'"):
            Imputation(latents, ("mcar11",))

    def test_designs_are_kept_apart(self, data, latents, fakes, results):
        for design in ("paper", "in_place"):
            run(Imputation(latents, ("mcar50",), design), [data], [fakes.Fake(data.counts)], [0], results)
        assert set(results.table().task) == {"imputation", "imputation in_place"}

    def test_mar_needs_genes_that_are_left_out(self, data, latents):
        everything = dataclasses.replace(data, left_out=np.zeros(60))
        with pytest.raises(ValueError, match="choose fewer genes"):
            list(Imputation(latents).splits(everything, ["mar25"], seed=0))


class TestScfid:
    def test_trains_once_and_keeps_the_model(self, data, latents, tmp_path, monkeypatch):
        from countsdiff.benchmark import _latents

        calls = []
        train = _latents._train
        monkeypatch.setattr(_latents, "_train", lambda *args: calls.append(args) or train(*args))
        cached = dataclasses.replace(latents, cache=tmp_path / "scvi", model=None)
        rows = np.arange(48)
        first = cached.of(data, rows, 0)(data.counts)
        _latents._load.cache_clear()
        np.testing.assert_array_equal(cached.of(data, rows, 0)(data.counts), first)
        assert first.shape == (60, 10)
        assert len(calls) == 1
        assert len(list((tmp_path / "scvi").iterdir())) == 1

    def test_refuses_a_model_of_other_genes_before_any_work(self, data, latents, fakes, results, tmp_path):
        other = dataclasses.replace(data, genes=data.genes[::-1])
        diligent = fakes.Diligent(data.counts, diary=tmp_path / "diary")
        with pytest.raises(ValueError, match="genes of this scVI model"):
            run(Imputation(latents, ("mcar50",)), [other], [diligent], [0], results)
        assert not diligent.diary.exists()
        with pytest.raises(ValueError, match="no saved scVI model"):
            dataclasses.replace(latents, model=tmp_path).of(data, np.arange(5), 0)


def test_training_for_scfid_leaves_the_user_s_random_numbers_alone(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

    def draw():
        return np.random.rand(), torch.rand(()).item(), random.random()  # noqa: NPY002

    numbers = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        random.seed(seed)
        with _seeded(7):
            inside = draw()
        numbers.append((inside, draw()))
    assert numbers[0][0] == numbers[1][0]
    assert not set(numbers[0][1]) & set(numbers[1][1])
    assert "PL_GLOBAL_SEED" not in os.environ


class TestDenoising:
    def test_null_value_of_doing_nothing_is_that_of_the_permuted_counts(self, data, results):
        from countsdiff import metrics

        run(Null(), [data], [Null().methods()["none"]], [5], results)
        permuted = np.random.default_rng(5).permuted(data.counts, axis=0)
        np.testing.assert_array_equal(np.sort(permuted, axis=0), np.sort(data.counts, axis=0))
        expected = metrics.mean_absolute_correlation(metrics.log_normalise(permuted))
        assert value(results.table(), "mean_absolute_correlation") == pytest.approx(expected)
        one_scale = np.log1p(permuted * (10_000 / permuted.sum(axis=1).mean()))
        expected = metrics.mean_absolute_correlation(one_scale)
        assert value(results.table(), "mean_absolute_correlation_unnormalised") == pytest.approx(expected)

    def test_output_that_varies_in_depth_alone_has_no_correlation_once_normalised(self, data, query):
        from countsdiff.benchmark.interfaces import Prediction

        depth = np.random.default_rng(0).gamma(4.0, 1.0, (60, 1))
        prediction = Prediction((depth * data.counts.mean(axis=0)).astype(np.float32), None, None, 0, 0, 0, 0)
        normalised, unnormalised = Null().score(data, 0, query, prediction)
        assert np.isnan(normalised.value)
        assert unnormalised.value > 0.95  # not 1: logarithms bend small means less than large ones

    def test_molecules_are_split_as_by_open_problems(self, data):
        (split,) = MolecularCV().splits(data, ["molecules10"], seed=4)
        train = np.random.default_rng(4).binomial(data.counts.astype(int), 0.9)
        detected = train.any(axis=0)
        np.testing.assert_array_equal(split.seen.counts, train[:, detected])
        np.testing.assert_array_equal(split.queries[0].truth, (data.counts - train)[:, detected])
        assert split.queries[0].cells is split.seen

    def test_molecular_scores_of_doing_nothing(self, data, results):
        from countsdiff import metrics

        run(MolecularCV(), [data], [MolecularCV().methods()["none"]], [4], results)
        table = results.table()
        (split,) = MolecularCV().splits(data, ["molecules10"], seed=4)
        train, test = split.seen.counts, split.queries[0].truth
        assert value(table, "open_problems_mse") == pytest.approx(metrics.open_problems_mse(test, train))
        expected = metrics.poisson_loss(test.ravel(), train.ravel() / 9)
        assert value(table, "poisson_loss") == pytest.approx(expected, rel=1e-5)
        theirs = metrics.open_problems_poisson(test, train * (test.sum() / train.sum()))
        assert value(table, "open_problems_poisson") == pytest.approx(theirs, rel=1e-5)
        assert set(table.metric) == {"open_problems_mse", "poisson_loss", "open_problems_poisson"} | COSTS
        assert value(table, "open_problems_mse", "Poisson log mean") < value(table, "open_problems_mse")

    def test_means_are_turned_into_the_best_means_of_logarithms_of_poisson_counts(self):
        from countsdiff import metrics
        from countsdiff.benchmark._denoising import _poisson_log_mean

        rng = np.random.default_rng(0)
        mean = rng.gamma(0.3, 1.0, (1, 30)).repeat(20_000, axis=0).astype(np.float32)
        counts = rng.poisson(mean).astype(np.float32)
        best = metrics.log_normalise(counts).mean(axis=0)
        found = metrics.log_normalise(_poisson_log_mean(mean))[0]
        plain = metrics.log_normalise(mean)[0]
        others = np.arange(30) != mean[0].argmax()  # the largest makes up for the sum of the others
        assert np.abs(found - best)[others].max() < 0.35
        assert np.square(found - best)[others].sum() < 0.02 * np.square(plain - best)[others].sum()


class TestFailures:
    @pytest.fixture
    def table(self, data, latents, fakes, results):
        kinds = {"broken": fakes.Broken, "not_there": fakes.NotInstalled, "killed": fakes.Killed}
        methods = [kind(data.counts, name) for name, kind in (kinds | {"negative": fakes.Negative}).items()]
        run(Imputation(latents, ("mcar50",)), [data], methods, [0], results)
        return results.table().set_index("method")

    def test_are_reported_with_the_reason_and_without_numbers(self, table, results):
        assert table.metric.to_dict() == {
            "broken": "failed",
            "not_there": "absent",
            "killed": "failed",
            "negative": "failed",
        }
        assert table.value.isna().all()
        assert table.note["broken"] == "RuntimeError: no luck | today"
        assert "no_such_package" in table.note["not_there"]
        assert "SIGKILL" in table.note["killed"]
        assert "the prediction holds -0.5" in table.note["negative"]
        write_report(results)
        text = (results.folder / "report.md").read_text()
        assert "| toy | mcar50 | broken | 0 | failed: RuntimeError: no luck \\| today |" in text
        assert "## Absent and failed" in text
        assert "absent: ModuleNotFoundError" in text

    def test_at_one_mask_leave_the_others(self, data, latents, fakes, results):
        task = Imputation(latents, ("mcar75", "mcar10"))
        run(task, [data], [fakes.Picky(data.counts)], [0], results)
        table = results.table()
        assert list(table[table["mask"] == "mcar75"].metric) == ["failed"]
        assert value(table, "rmse", mask="mcar10") == 0

    def test_are_tried_again_and_made_up_for(self, data, fakes, results, tmp_path):
        obstacle = tmp_path / "obstacle"
        obstacle.touch()
        method = fakes.Diligent(data.counts, diary=tmp_path / "diary", obstacle=obstacle)
        run(Null(), [data], [method], [0], results)
        run(Null(), [data], [method], [0], results)
        assert list(results.table().metric) == ["failed"]
        obstacle.unlink()
        method = dataclasses.replace(method, counts=np.random.default_rng(0).permuted(data.counts, axis=0))
        run(Null(), [data], [method], [0], results)
        assert "failed" not in set(results.table().metric)
        assert "mean_absolute_correlation" in set(results.table().metric)

    def test_classes_of_the_script_that_runs_are_refused(self, data, results, fakes, monkeypatch):
        monkeypatch.setattr(fakes.Broken, "__module__", "__main__")
        with pytest.raises(ValueError, match="class Broken of the method 'gone' is defined in this script"):
            run(Null(), [data], [fakes.Broken(data.counts, "gone")], [0], results)

    def test_are_said_at_once(self, data, results, fakes, capfd):
        run(Null(), [data], [fakes.Broken(data.counts, "broken")], [0], results)
        assert "broken failed: RuntimeError: no luck | today" in capfd.readouterr().err


class TestResults:
    def test_a_full_disk_leaves_whole_units(self, tmp_path):
        # a process of its own: the limit on the size of files cannot be taken back
        program = f"""
import resource, signal
from countsdiff.benchmark import Results
from countsdiff.benchmark.interfaces import Score
from countsdiff.benchmark._results import PEAK_MEMORY, Unit

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
results = Results({str(tmp_path)!r})
results.add(Unit("null", "toy", "permuted", "first", 0), [Score("", PEAK_MEMORY, 1.0)])
resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))
try:
    results.add(Unit("null", "toy", "permuted", "second", 0), [Score("", "x" * 200, 1.0), Score("", PEAK_MEMORY, 1.0)])
except OSError as error:
    print(error.strerror)
"""
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        assert done.stdout == "File too large\n"
        assert list(Results(tmp_path).table().method) == ["first"]

    def test_a_line_that_was_cut_off_is_not_there(self, results):
        first, second, third = (Unit("null", "toy", "permuted", name, 0) for name in ("first", "second", "third"))
        done = [Score("", PEAK_MEMORY, 1.0, "")]
        results.add(first, done)
        results.add(second, done)
        table = results.folder / "results.csv"
        table.write_bytes(table.read_bytes()[:-9])
        assert Results(results.folder).done() == {first}
        Results(results.folder).add(third, done)
        assert Results(results.folder).done() == {first, third}

    @pytest.mark.parametrize("name", ["results.csv", "benchmark.json"])
    @pytest.mark.parametrize("content", ["a,b\n1,2,3\n", "a,b\n1,2\n", "{"])
    def test_damaged_files_are_named(self, results, name, content):
        (results.folder / name).write_text(content + "\n")
        with pytest.raises(ValueError, match=name):
            Results(results.folder).table() if name == "results.csv" else Results(results.folder).commands()

    def test_no_work_is_done_twice(self, data, latents, fakes, results, tmp_path):
        method = fakes.Diligent(data.counts, diary=tmp_path / "diary")
        for masks in (("mcar10",), ("mcar10", "mcar50"), ("mcar50",)):
            run(Imputation(latents, masks), [data], [method], [7], results)
        assert method.diary.read_text() == "48 complete 7\n" * 2
        before = results.table()
        again = Results(results.folder)
        run(Imputation(latents, ("mcar10", "mcar50")), [data], [method], [7], again)
        pd.testing.assert_frame_equal(again.table(), before)

    def test_a_unit_without_its_last_row_is_not_done(self, results):
        unit = Unit("null", "toy", "permuted", "none", 0)
        results.add(unit, [Score("mean", "mean_absolute_correlation", 0.1)])
        assert results.done() == set()
        results.add(unit, [Score("mean", "mean_absolute_correlation", 0.2), Score("", "peak_memory_mb", 1.0)])
        assert results.done() == {unit}
        assert value(results.table(), "mean_absolute_correlation") == 0.2

    def test_names_that_pandas_takes_for_nothing_stay_names(self, results):
        results.add(Unit("null", "NA", "nan", "none", 0), [Score("mean", "r2", 1.0, "NULL")])
        row = results.table().iloc[0]
        assert list(row) == ["null", "NA", "nan", "none", 0, "mean", "r2", 1.0, "NULL"]

    def test_refuses_other_data_of_the_same_name(self, data, results):
        results.register(data)
        results.register(data)
        with pytest.raises(ValueError, match=r"another 'toy' \(60 cells × 20 genes, 2 labels; now 60 × 20, 0\)"):
            results.register(dataclasses.replace(data, labels=None))


def test_time_and_memory_are_those_of_the_method(data, fakes, query):
    split = Split(query.cells, (query,))
    ballast = np.ones(400 * 2**20, dtype=np.uint8)  # of this process, which is none of the method's business
    light, heavy = (
        next(predict_in_subprocess(kind(data.counts), split, n_draws=0, seed=0)).peak_memory_mb
        for kind in (fakes.Fake, fakes.Hungry)
    )
    assert ballast.all()
    assert light < 200
    assert light + 150 < heavy < light + 250
