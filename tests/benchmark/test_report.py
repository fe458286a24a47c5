import numpy as np
import pytest

from countsdiff.benchmark import Results, write_report
from countsdiff.benchmark._results import Unit
from countsdiff.benchmark.interfaces import Score

COSTS = [Score("", "fit_seconds", 1.5), Score("", "impute_seconds", 0.25), Score("", "peak_memory_mb", 512.0)]


def imputation(rmse, r2, bias, note=""):
    scores = {"rmse": rmse, "r2": r2, "bias": bias, "rmse_low": rmse - 0.5, "rmse_high": rmse + 0.5}
    return [
        *(Score("mean", metric, value) for metric, value in scores.items()),
        *(Score("1 sample", metric, value, note) for metric, value in scores.items()),
        Score("1 sample", "energy_distance", rmse, note),
        *COSTS,
    ]


@pytest.fixture
def results(tmp_path, data):
    results = Results(tmp_path)
    results.register(data)
    results.add_command("countsdiff benchmark toy.h5ad")
    results.add_command("countsdiff benchmark toy.h5ad")
    for seed, rmse in ((0, 1.0), (1, 2.0)):
        results.add(Unit("imputation", "toy", "mcar50", "good", seed), imputation(rmse, 0.9, -0.5))
    results.add(Unit("imputation", "toy", "mcar50", "poor", 0), imputation(4.0, -1.0, 0.1, "its mean stands in"))
    results.add(Unit("imputation", "toy", "mcar50", "gone", 0), [Score("", "absent", np.nan, "ImportError: <b>")])
    for method, value in (("none", 0.1), ("flat", np.nan)):
        scores = [Score("mean", "mean_absolute_correlation", value), *COSTS]
        results.add(Unit("null", "toy", "permuted", method, 0), scores)
    return results


@pytest.fixture
def text(results):
    write_report(results)
    return (results.folder / "report.md").read_text()


def test_shows_mean_range_interval_and_the_best(text):
    rows = {line.split(" | ")[2]: line.split(" | ") for line in text.split("\n") if line.startswith("| toy | mcar50")}
    assert list(rows) == ["good", "poor", "gone"]
    assert rows["good"][3:5] == ["2", "**1.5 ± 0.5 [1, 2]**"]
    assert rows["poor"][3:5] == ["1", "4 [3.5, 4.5]"]
    assert rows["good"][6] == "-0.5 ± 0"
    assert rows["poor"][6] == "**0.1**"  # nearest to 0
    assert rows["good"][7] == "**0.9 ± 0**"
    assert rows["gone"][3:5] == ["0", "absent: ImportError: <b>"]
    assert "4 [3.5, 4.5]†" in rows["poor"]
    assert "†" not in " ".join(rows["good"])


def test_names_every_method_command_and_cost(text):
    assert text.count("countsdiff benchmark toy.h5ad") == 1
    assert "| toy | 60 | 20 | 2 |" in text
    assert "| toy | permuted | flat | 1 | – |" in text
    assert "| toy | permuted | none | 1 | **0.1** |" in text
    assert "| imputation | toy | good | 1.50 | 0.25 | – | 512 |" in text


def test_html_is_the_same_and_escaped(results, text):
    html = (results.folder / "report.html").read_text()
    for title in ("Imputation of new cells", "Null", "Time and memory", "Absent and failed"):
        assert f"## {title}" in text
        assert f"<h2>{title}</h2>" in html
    assert "<strong>1.5 ± 0.5 [1, 2]</strong>" in html
    assert "ImportError: &lt;b&gt;" in html


def test_pictures_are_small_and_there(results, text):
    for name in ("imputation.png", "null.png"):
        assert f"({name})" in text
        assert 2_000 < (results.folder / name).stat().st_size < 100_000


def test_a_task_without_numbers_has_no_picture(tmp_path):
    results = Results(tmp_path)
    results.add(Unit("null", "toy", "permuted", "gone", 0), [Score("", "failed", np.nan, "ValueError: no")])
    write_report(results)
    assert "null.png" not in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "null.png").exists()
