"""Checkpoints of earlier versions, frozen: what they predict must not change."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from countsdiff import CountsDiffImputer
from countsdiff.model import _record, _saving
from countsdiff.model_files import FormatVersion

DATA = Path(__file__).parent / "data"
CHECKPOINTS = sorted(folder.name for folder in DATA.iterdir() if (folder / "model.json").is_file())


@pytest.fixture(scope="module")
def made():
    return runpy.run_path(str(DATA / "make_checkpoint.py"))


@pytest.fixture
def answers_of(made):
    """What a checkpoint says now, and what it said when it was made."""

    def answers_of(name):
        with np.load(DATA / name / "expected.npz", allow_pickle=False) as arrays:
            expected = dict(arrays)
        return made["answers"](CountsDiffImputer.load(DATA / name, adata=False), made["cells_of"](expected)), expected

    return answers_of


def test_there_is_a_checkpoint_of_every_version():
    assert [f"v{i + 1}" for i in range(_saving.FORMAT.current)] == CHECKPOINTS


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_says_what_it_said_when_it_was_made(name, answers_of):
    answers, expected = answers_of(name)
    assert len(answers) == 3
    for output, values in answers.items():
        np.testing.assert_allclose(values, expected[output], rtol=1e-4, atol=1e-6, err_msg=output)
    hidden = expected["hidden"]
    np.testing.assert_array_equal(answers["mean"][~hidden], expected["counts"][~hidden])
    assert np.unique(answers["mean"][hidden]).size > 10


def test_a_migration_makes_an_older_file_current(monkeypatch, answers_of, made):
    # were a version to name the attribute anew, this is all it would take to go on reading those before
    def rename(content):
        content["is_trained"] = content.pop("trained")
        return _record.FORMAT.migrations[4](content)

    def break_off(content):
        content["trained"] = content.pop("is_trained")
        return content

    migrations = {1: break_off, 2: rename}
    monkeypatch.setattr(_saving, "FORMAT", FormatVersion("countsdiff model", current=3, migrations=migrations))
    answers, expected = answers_of("v1")
    np.testing.assert_allclose(answers["mean"], expected["mean"], rtol=1e-4, atol=1e-6)
