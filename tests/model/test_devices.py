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
import sys
import warnings

import anndata
import numpy as np
import torch

from countsdiff import CountsDiffImputer

torch.set_num_threads(1)
warnings.simplefilter("ignore")
settings = dict(eval(sys.argv[2]), devices=2, strategy="ddp")
for dropout in (0.0, 0.2):
    model = CountsDiffImputer(anndata.read_h5ad(sys.argv[1]), width=16, dropout=dropout)
    model.train(**settings)
    results = {name: value.numpy() for name, value in model.module.state_dict().items()}
    results |= {name: frame[name].to_numpy(float) for name, frame in model.history.items()}
    rank = os.environ["LOCAL_RANK"] if "LOCAL_RANK" in os.environ else 0
    np.savez(f"{sys.argv[3]}-{dropout}-{rank}.npz", early=model.trainer.early_stopping_callback is not None, **results)
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
    arguments = [tmp_path / "script.py", tmp_path / "in.h5ad", repr(SETTINGS), tmp_path / "out"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "LOCAL_RANK", "MASTER_"))}
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, check=True, timeout=300)
    for dropout in (0.0, 0.2):
        first, second = (np.load(tmp_path / f"out-{dropout}-{rank}.npz") for rank in (0, 1))
        assert first["early"]
        assert len(first["validation_loss"]) == 2
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        if dropout == 0.0:
            assert_close(first, fit(adata))
    assert not (tmp_path / "lightning_logs").exists()


def test_passes_add_up_to_a_step(make_adata):
    whole = fit(make_adata())
    parts = fit(make_adata(), batch_size=8, accumulate_grad_batches=4)
    assert parts.trainer.global_step == whole.trainer.global_step == 24
    results = {name: value.numpy() for name, value in parts.module.state_dict().items()}
    assert_close(results | {name: frame[name].to_numpy(float) for name, frame in parts.history.items()}, whole)
    rates = [model.trainer.optimizers[0].param_groups[0]["lr"] for model in (whole, parts)]
    assert rates[0] == rates[1] < 1e-6  # at the end of its cycle
