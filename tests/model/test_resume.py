import signal
import subprocess
import sys
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from countsdiff import CountsDiffImputer
from countsdiff.model import _callbacks, _training


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """A checkpoint at every validation, not only after a minute."""
    monkeypatch.setattr(_callbacks, "_SECONDS_BETWEEN", 0.0)


# three steps are an epoch, twelve a validation
SETTINGS = {"max_steps": 60, "batch_size": 32, "check_val_every_n_epoch": 4, "enable_progress_bar": False}


def fit(adata, **kwargs):
    torch.set_num_threads(1)  # numba, which scanpy runs on, resets it, and two threads round differently
    model = CountsDiffImputer(adata, width=32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(**SETTINGS | kwargs)
    return model


def assert_same(model, expected):
    state = model.module.state_dict()
    for name, value in expected.module.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert model.history.keys() == expected.history.keys()
    for name, frame in expected.history.items():
        np.testing.assert_array_equal(frame.index.astype(int), model.history[name].index.astype(int))
        np.testing.assert_array_equal(frame[name].astype(float), model.history[name][name].astype(float))


# A process of its own, which forks before it computes anything: forks of one that has are known to hang
SCRIPT = """
import multiprocessing
import os
import signal
import sys
import warnings

import anndata
import lightning.pytorch as pl
import torch

from countsdiff import CountsDiffImputer
from countsdiff.model import _callbacks


class Kill(pl.Callback):  # nothing that could be caught, cleaned up or flushed
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(**kwargs):
    torch.set_num_threads(1)
    CountsDiffImputer(anndata.read_h5ad("in.h5ad"), width=32).train(**eval(sys.argv[1]), resume="last.ckpt", **kwargs)


def killed_at(step):
    fit(callbacks=[Kill(step)])


def killed_while_writing(n_writes):
    replace, writes = os.replace, []

    def replace_or_die(*args):
        writes.append(args)
        if len(writes) == n_writes:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*args)

    os.replace = replace_or_die
    fit()


warnings.simplefilter("ignore")
_callbacks._SECONDS_BETWEEN = 0.0
fork = multiprocessing.get_context("fork")
for death, when in [*((killed_at, step) for step in eval(sys.argv[2])), (killed_while_writing, 1)]:
    process = fork.Process(target=death, args=(when,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert os.path.exists("last.ckpt") == (when != 5)  # the first dies before the first checkpoint
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs to fork a process that has torch loaded")
def test_a_killed_training_ends_like_one_that_was_not(make_adata, tmp_path, monkeypatch):
    expected = fit(make_adata())
    make_adata().write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "script.py").write_text(SCRIPT)
    steps = np.sort(np.random.default_rng(0).choice(np.arange(13, 60), 3, replace=False)).tolist()
    command = [sys.executable, "script.py", repr(SETTINGS), repr([5, *steps])]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)

    def forbidden(*args, **kwargs):
        raise AssertionError("a checkpoint is no pickle")

    monkeypatch.setattr(torch, "load", forbidden)
    torch.rand(7)  # what happens in between does not matter
    assert_same(fit(make_adata(), resume=tmp_path / "last.ckpt"), expected)


def test_what_has_ended_stays_so(make_adata, tmp_path):
    whole = fit(make_adata(), resume=tmp_path / "whole.ckpt", max_steps=24)
    assert_same(fit(make_adata(), resume=tmp_path / "whole.ckpt", max_steps=24), whole)
    stopped = {"resume": tmp_path / "stopped.ckpt", "lr": 1e-12, "early_stopping_patience": 2}
    early = fit(make_adata(), **stopped)
    assert early.trainer.global_step < 60
    again = fit(make_adata(), **stopped)
    assert again.trainer.global_step == early.trainer.global_step
    assert_same(again, early)


def test_without_validation(make_adata, tmp_path):
    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == 17:
                raise InterruptedError

    settings = {"validation_size": 0.0, "max_steps": 24, "precision": "bf16-mixed", "accumulate_grad_batches": 2}
    expected = fit(make_adata(), **settings)
    with pytest.raises(InterruptedError):
        fit(make_adata(), resume=tmp_path / "last.ckpt", callbacks=[Stop()], **settings)
    assert_same(fit(make_adata(), resume=tmp_path / "last.ckpt", **settings), expected)


def test_goes_on_with_the_same_data_and_settings_only(make_adata, tmp_path, monkeypatch):
    file = tmp_path / "last.ckpt"
    fit(make_adata(), max_steps=12, resume=file)
    for change, words in (
        ({"lr": 0.1}, r"has lr 0\.002, not 0\.1"),
        ({"max_steps": 24}, "has n_steps 12, not 24"),
        ({"seed": 1}, "has seed 0, not 1"),
    ):
        with pytest.raises(ValueError, match=rf"last\.ckpt: the training in there {words}; give the same"):
            fit(make_adata(), resume=file, **{"max_steps": 12} | change)
    monkeypatch.setattr(_training, "parse_device_args", lambda *_, **__: ("gpu", [0], torch.device("cuda", 0)))
    with pytest.raises(ValueError, match="has kind of device cpu, not cuda"):  # whose random streams are others
        fit(make_adata(), max_steps=12, resume=file)
    monkeypatch.undo()
    for other, words in (
        (make_adata(n_obs=91), "cells 90, not 91"),
        (make_adata()[:, ::-1].copy(), "checksum of names"),
        (make_adata(seed=1), "checksum of counts"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(other, max_steps=12, resume=file)


@pytest.mark.parametrize("other", ["mask", "cells", "batch", "age"])
def test_goes_on_with_the_same_entries_and_covariates_only(make_adata, tmp_path, other):
    def prepared(change):
        adata = make_adata()
        rng = np.random.default_rng(change == "mask")
        adata.layers["hidden"] = rng.random(adata.shape) < 0.3
        if change == "cells":
            adata.X = adata.X[::-1].copy()  # the same counts in all, of other cells
        for column in {"batch", "age"} & {change}:
            adata.obs[column] = adata.obs[column].to_numpy()[::-1]
        CountsDiffImputer.setup_anndata(
            adata, missing_layer="hidden", batch_key="batch", continuous_covariate_keys=["age"]
        )
        return CountsDiffImputer(adata, width=8, depth=1)

    file, how = tmp_path / "last.ckpt", {"enable_progress_bar": False, "accelerator": "cpu"}
    prepared("nothing").train(4, resume=file, **how)
    prepared("nothing").train(4, resume=file, **how)
    what = {"mask": "counts", "cells": "counts"}.get(other, other)
    with pytest.raises(ValueError, match=f"last.ckpt: the training in there has checksum of {what}"):
        prepared(other).train(4, resume=file, **how)


def test_a_query_goes_on_with_the_same_reference_only(make_adata, tmp_path):
    references = [fit(make_adata(), max_steps=4, seed=seed) for seed in (0, 1)]
    file, how = tmp_path / "last.ckpt", {"enable_progress_bar": False, "accelerator": "cpu"}
    for _ in range(2):
        CountsDiffImputer.load_query_data(make_adata(seed=1), references[0]).train(4, resume=file, **how)
    with pytest.raises(ValueError, match="has checksum of the reference"):
        CountsDiffImputer.load_query_data(make_adata(seed=1), references[1]).train(4, resume=file, **how)


TERMINATED = """
import os, signal, sys
import anndata, lightning.pytorch as pl
from countsdiff import CountsDiffImputer

class Terminate(pl.Callback):
    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

model = CountsDiffImputer(anndata.read_h5ad("in.h5ad"), width=8, depth=1)
model.train(500, enable_progress_bar=False, accelerator="cpu", callbacks=[Terminate()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_a_terminated_training_is_no_success(make_adata, tmp_path):
    make_adata().write_h5ad(tmp_path / "in.h5ad")
    ended = subprocess.run([sys.executable, "-c", TERMINATED], cwd=tmp_path, check=False, timeout=300)
    assert ended.returncode == 128 + signal.SIGTERM


def test_a_checkpoint_a_minute(make_adata, tmp_path, monkeypatch):
    monkeypatch.setattr(_callbacks, "_SECONDS_BETWEEN", 1e9)
    written = []
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", lambda trainer, file: written.append(trainer.global_step))
    fit(make_adata(), max_steps=24, resume=tmp_path / "last.ckpt")
    assert written == [24]
