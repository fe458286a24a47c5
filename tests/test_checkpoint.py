import os

import pytest
import torch

from countsdiff.checkpoint import SafeCheckpoints, check_same_training


@pytest.fixture
def storage() -> SafeCheckpoints:
    return SafeCheckpoints()


def test_what_is_written_is_read(storage, tmp_path):
    shared = torch.arange(6.0)
    checkpoint = {
        "state": {0: {"step": torch.tensor(3.0), "half": shared[::2], "same": shared}, 1: {}},
        "flags": torch.tensor([True, False]),
        "numbers": [1, 0.1 + 0.2, float("inf"), None, True, "text"],
        "tensor": {"items": {"a.b": 1, "tensor": 2}},
    }
    storage.save_checkpoint(checkpoint, tmp_path / "new folder" / "last.ckpt")
    read = storage.load_checkpoint(tmp_path / "new folder" / "last.ckpt")
    state, read_state = checkpoint.pop("state"), read.pop("state")
    assert torch.equal(checkpoint.pop("flags"), read.pop("flags"))
    assert read == checkpoint
    assert list(read_state) == [0, 1]
    assert all(torch.equal(value, read_state[0][name]) for name, value in state[0].items())


def test_what_is_neither_tensor_nor_json_is_refused(storage, tmp_path):
    storage.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    with pytest.raises(TypeError, match=r"checkpoint\.callbacks\.mine\.0 is a set"):
        storage.save_checkpoint({"callbacks": {"mine": [{1, 2}]}}, tmp_path / "last.ckpt")
    assert storage.load_checkpoint(tmp_path / "last.ckpt") == {"step": 1}


def test_an_interrupted_write_leaves_the_last_checkpoint(storage, tmp_path, monkeypatch):
    storage.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.save_checkpoint({"step": 2}, tmp_path / "last.ckpt")
    assert storage.load_checkpoint(tmp_path / "last.ckpt") == {"step": 1}
    storage.save_checkpoint({"step": 3}, tmp_path / "last.ckpt")
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("damage", ["text", "cut", "other"])
def test_other_files_are_no_checkpoints(storage, tmp_path, damage):
    from safetensors.torch import save_file

    file = tmp_path / "last.ckpt"
    storage.save_checkpoint({"weights": torch.ones(100)}, file)
    if damage == "text":
        file.write_text("once upon a time")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    else:
        save_file({"weights": torch.ones(3)}, file)
    with pytest.raises(ValueError, match=r"last\.ckpt is no checkpoint of a training"):
        storage.load_checkpoint(file)


def test_the_first_difference_is_named():
    check_same_training({"lr": 0.1, "seed": 0, "more": 1}, {"lr": 0.1, "seed": 0}, "here")
    with pytest.raises(ValueError, match=r"^here: the training in there has seed 0, not 1; give the same"):
        check_same_training({"lr": 0.1, "seed": 0}, {"lr": 0.1, "seed": 1}, "here")
