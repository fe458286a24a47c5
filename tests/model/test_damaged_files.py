"""Saved models damaged at random, a few of those that benchmarks/reliability/fuzz_models.py tries."""

import importlib
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "reliability"
N = 150


@pytest.fixture
def fuzz_models(monkeypatch):
    monkeypatch.syspath_prepend(PROGRAM)
    return importlib.import_module("fuzz_models")


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_model_is_the_same_or_refused(fuzz_models, tmp_path):
    table, defects = fuzz_models.fuzz(range(10**6, 10**6 + N), tmp_path / "model")
    assert defects == []
    counts = table.set_index("damage").loc["all"]
    assert counts["refused"] > 0.9 * N
    assert counts["the same model"] + counts["refused"] + counts["another model"] == N
