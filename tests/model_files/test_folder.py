import os

import pytest

from countsdiff.model_files import replacing


def write(folder, text, names=("record", "weights")):
    with replacing(folder, last="record") as new:
        for name in names:
            (new / name).write_text(f"{text} {name}")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_appear_together(tmp_path):
    folder = tmp_path / "a" / "b"
    with replacing(folder, last="record") as new:
        (new / "record").write_text("1")
        assert not folder.exists()
    assert contents(folder) == {"record": "1"}
    assert os.listdir(folder.parent) == ["b"]


def test_other_files_stay(tmp_path):
    (tmp_path / "notes").write_text("mine")
    write(tmp_path, "old")
    write(tmp_path, "new")
    assert contents(tmp_path) == {"notes": "mine", "record": "new record", "weights": "new weights"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [False, True])
def test_writing_that_fails_changes_nothing(tmp_path, error, exists):
    folder = tmp_path / "model"
    if exists:
        write(folder, "old")

    def fail():
        with replacing(folder, last="record") as new:
            (new / "weights").write_text("new weights")
            raise error("the disk is full")

    with pytest.raises(error, match="disk"):
        fail()
    assert os.listdir(tmp_path) == (["model"] if exists else [])
    assert not exists or contents(folder) == {"record": "old record", "weights": "old weights"}


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("old", [(), ("record",), ("record", "weights"), ("record", "weights", "more")])
def test_putting_files_in_place_may_fail_at_any_step(tmp_path, monkeypatch, old, late):
    write(tmp_path, "old", old)
    before, replace = contents(tmp_path), os.replace

    def fail_at(step):
        done = []

        def fails(*paths):
            # a reader finds the record with its own weights, at any moment, or no record
            found = {path.name: path.read_text().split()[0] for path in tmp_path.iterdir() if path.is_file()}
            assert "record" not in found or found["record"] == found.get("weights", found["record"])
            if not paths[0].exists():
                raise FileNotFoundError
            done.append(paths)
            if len(done) == step + 1 and not late:
                raise KeyboardInterrupt
            replace(*paths)
            if len(done) == step + 1 and late:
                raise KeyboardInterrupt

        return fails

    n_steps = 2 + len(set(old) & {"record", "weights"})
    for step in range(n_steps):
        monkeypatch.setattr(os, "replace", fail_at(step))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, "new")
        assert contents(tmp_path) == before
    monkeypatch.setattr(os, "replace", fail_at(n_steps))
    write(tmp_path, "new")
    assert contents(tmp_path) == {**before, "record": "new record", "weights": "new weights"}
