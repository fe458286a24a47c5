"""The same training on one device, on two, and in several passes."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from countsdiff import CountsDiffImputer

# the last of three steps has one cell only; of three validation minibatches every device gets some
SETTINGS = {
    "max_steps": 24,
    "batch_size": 32,
    "validation_size": 0.43,
    "check_val_every_n_epoch": 4,
    "accelerator": "cpu",
    "enable_progress_bar": False,
}

SCRIPT = """
import os
import shutil
import sys
import warnings

import anndata
import lightning.pytorch as pl
import numpy as np
import torch

from countsdiff import CountsDiffImputer
from countsdiff.model import _callbacks


class Keep(pl.Callback):  # the checkpoint of the first validation: all that a kill after it would leave
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.is_global_zero and trainer.current_epoch == 5:
            shutil.copy("last.ckpt", "kept.ckpt")


def fit(name, dropout, **kwargs):
    model = CountsDiffImputer(anndata.read_h5ad("in.h5ad"), width=16, dropout=dropout)
    model.train(**eval(sys.argv[1]), devices=2, strategy="ddp", **kwargs)
    results = {name: value.numpy() for name, value in model.module.state_dict().items()}
    results |= {name: frame[name].to_numpy(float) for name, frame in model.history.items()}
    stopper = model.trainer.early_stopping_callback
    np.savez(f"{name}-{model.trainer.global_rank}.npz", patience=stopper.patience, **results)


torch.set_num_threads(1)
warnings.simplefilter("ignore")
_callbacks._SECONDS_BETWEEN = 0.0
fit("plain", 0.0)
fit("dropout", 0.2, resume="last.ckpt", callbacks=[Keep()])
fit("resumed", 0.2, resume="kept.ckpt")
"""


def fit(adata, **kwargs):
    model = CountsDiffImputer(adata, width=16, dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(**SETTINGS | kwargs)
    return model


def assert_close(results, model):
    for name, value in model.module.state_dict().items():
        np.testing.assert_allclose(results[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    for name, frame in model.history.items():
        np.testing.assert_allclose(results[name], frame[name].to_numpy(float), rtol=1e-4, err_msg=name)


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this build of torch cannot train on several CPUs (gloo)",
)
def test_two_devices_train_like_one(make_adata, tmp_path):
    adata = make_adata(n_obs=114)
    adata.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "LOCAL_RANK", "MASTER_"))}
    environment["PL_GLOBAL_SEED"] = "7"  # of scvi.settings.seed, to which Lightning resets torch on several devices
    command = [sys.executable, "script.py", repr(SETTINGS)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    results = {file.stem: np.load(file) for file in tmp_path.glob("*.npz")}
    assert len(results) == 6
    for first, second in (("plain-0", "plain-1"), ("dropout-0", "dropout-1"), ("dropout-0", "resumed-1")):
        for name, value in results[first].items():
            np.testing.assert_array_equal(value, results[second][name], err_msg=name)
    plain = results["plain-0"]
    assert plain["patience"] == 20  # scvi-tools would have switched it off, and written files
    assert not (tmp_path / "lightning_logs").exists()
    assert len(plain["validation_loss"]) == 2
    assert_close(plain, fit(adata))


def test_passes_add_up_to_a_step(make_adata):
    whole = fit(make_adata())
    parts = fit(make_adata(), batch_size=8, accumulate_grad_batches=4)
    assert parts.trainer.global_step == whole.trainer.global_step == 24
    results = {name: value.numpy() for name, value in parts.module.state_dict().items()}
    assert_close(results | {name: frame[name].to_numpy(float) for name, frame in parts.history.items()}, whole)
    rates = [model.trainer.optimizers[0].param_groups[0]["lr"] for model in (whole, parts)]
    assert rates[0] == rates[1] < 2e-5  # a hundredth of its peak: the cycle has ended
