"""Cells per second of training, imputing and sampling, beside what the machine can do.

python benchmarks/speed/throughput.py
python benchmarks/speed/throughput.py --device cuda --backbone mlp transformer --precision 32-true bf16-mixed

Synthetic cells, a tenth of the counts not zero. Every number is the median of several runs. Writes
benchmarks/results/speed/throughput.md, or throughput_cuda.md.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch.utils.flop_counter import FlopCounterMode

from countsdiff import CountsDiffImputer
from countsdiff.core import thin

sys.path.insert(0, str(Path(__file__).parents[1]))
from _markdown import markdown, write_page

RESULTS = Path(__file__).parents[1] / "results" / "speed"
REPEATS = 3
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu"}  # what Lightning calls them
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def wait() -> None:
    """Let the device finish, so that clocks of the host tell the truth."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(job: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median time of a job, after one run that does not count."""
    job()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        job()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate(device: str, precision: str) -> float:
    """GFLOP/s of a matrix product."""
    n = 8192 if device == "cuda" else 1024
    a = torch.randn(n, n, device=device, dtype=DTYPES[precision])
    return 2 * n**3 / seconds(lambda: a @ a, 20) / 1e9


def copying_rate(device: str) -> float:
    """GB/s of copying memory, read and written."""
    big = torch.randn(1_000_000_000 if device == "cuda" else 32_000_000, device=device)
    copy = torch.empty_like(big)
    return 2 * big.nbytes / seconds(lambda: copy.copy_(big), 10) / 1e9


def n_cells(device: str, backbone: str) -> int:
    """Cells that take seconds."""
    return 32_768 if device == "cuda" and backbone == "mlp" else 4_096


@lru_cache
def cells(n_obs: int, n_vars: int) -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = sparse.random(n_obs, n_vars, density=0.1, format="csr", random_state=0, dtype=np.float32)
    counts.data = rng.poisson(1.0, counts.nnz).astype(np.float32) + 1.0
    adata = ad.AnnData(counts)
    adata.layers["hidden"] = sparse.random(n_obs, n_vars, density=0.1, format="csr", random_state=1) > 0
    return adata


def flops_per_cell(model: CountsDiffImputer) -> int:
    """Floating point operations of the matrix products of one pass over one cell."""
    from countsdiff.core.interfaces import Context

    denoiser = model.module.denoiser
    x = torch.zeros(8, len(denoiser.mean), device=denoiser.mean.device)
    noised, nothing = torch.ones_like(x, dtype=torch.bool), x[:, :0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(x, x[:, :1], Context(x, ~noised, noised, nothing.long(), nothing))
    return counter.get_total_flops() // len(x)


def training(
    n_vars: int,
    device: str,
    backbone: str = "mlp",
    precision: str = "32-true",
    batch_size: int = 128,
    n_steps: int = 60,
) -> tuple[float, float]:
    """Cells per second of ``train``, from its eleventh step to its last, and the GFLOP/s of its matrix products."""
    import lightning.pytorch as pl

    class Clock(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
            if trainer.global_step == 10:  # Lightning's own start is behind it
                wait()
                self.start = time.perf_counter()

        def on_train_end(self, trainer: pl.Trainer, *args: object) -> None:
            wait()
            self.rate = batch_size * (trainer.global_step - 10) / (time.perf_counter() - self.start)

    rates = []
    for _ in range(REPEATS):
        model, clock = CountsDiffImputer(cells(n_cells(device, backbone), n_vars).copy(), backbone=backbone), Clock()
        model.train(
            n_steps,
            batch_size=batch_size,
            validation_size=0.0,
            accelerator=ACCELERATORS[device],
            precision=precision,
            enable_progress_bar=False,
            callbacks=[clock],
        )
        rates.append(clock.rate)
    # a pass forwards, and backwards to weights and to inputs
    return statistics.median(rates), 3 * flops_per_cell(model) * statistics.median(rates) / 1e9


def predicting(n_vars: int, device: str, backbone: str = "mlp") -> tuple[float, float, float]:
    """Cells per second of means and of samples in ten steps, and the GFLOP/s of the latter's matrix products."""
    adata = cells(n_cells(device, backbone), n_vars).copy()
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = CountsDiffImputer(adata, backbone=backbone)
    model.train(2, validation_size=0.0, accelerator=ACCELERATORS[device], enable_progress_bar=False)
    mean = seconds(lambda: model.impute(inplace=False))
    sample = seconds(lambda: model.impute(output="sample", n_steps=10, inplace=False))
    means, samples = adata.n_obs / mean, adata.n_obs / sample
    return means, samples, 10 * flops_per_cell(model) * samples / 1e9


def thinning(device: str) -> float:
    """How many times faster a million counts are thinned where nine tenths are zeros than where none is."""
    counts = torch.as_tensor(cells(1_024, 1_000).X.toarray(), device=device)
    full, generator = counts[counts > 0].repeat(10), torch.Generator(device).manual_seed(0)
    return seconds(lambda: thin(full, 0.5, generator)) / seconds(lambda: thin(counts, 0.5, generator))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", choices=ACCELERATORS, default="cpu")
    options.add_argument("--backbone", nargs="+", default=["mlp"])
    options.add_argument("--precision", nargs="+", choices=DTYPES, default=["32-true"])
    options.add_argument("--batch-size", nargs="+", type=int, default=[128])
    args = options.parse_args()
    warnings.simplefilter("ignore")
    limits = {precision: matmul_rate(args.device, precision) for precision in args.precision}
    copying, trained, predicted = copying_rate(args.device), [], []
    for backbone in args.backbone:
        for n_vars in (1_000, 2_000):
            mean, sample, sample_rate = predicting(n_vars, args.device, backbone)
            predicted.append(
                {
                    "backbone": backbone,
                    "genes": n_vars,
                    "imputing, mean (cells/s)": mean,
                    "sampling, 10 steps (cells/s)": sample,
                    "of it matrix products (GFLOP/s)": sample_rate,
                }
            )
            print(predicted[-1], flush=True)
            for precision in args.precision:
                for batch_size in args.batch_size:
                    rate, gflops = training(n_vars, args.device, backbone, precision, batch_size)
                    trained.append(
                        {
                            "backbone": backbone,
                            "genes": n_vars,
                            "precision": precision,
                            "cells a step": batch_size,
                            "training (cells/s)": rate,
                            "of it matrix products (GFLOP/s)": gflops,
                            "share of the machine's matmul": gflops / limits[precision],
                        }
                    )
                    print(trained[-1], flush=True)
    speed_up = thinning(args.device)
    name = "throughput" if args.device == "cpu" else "throughput_cuda"
    where = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if args.device == "cuda":
        where = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} cores"
    lines = [
        "# Cells per second" + (" on a GPU" if args.device == "cuda" else ""),
        f"`{' '.join(['python benchmarks/speed/throughput.py', *sys.argv[1:]])}`",
        f"Synthetic cells, a tenth of the counts not zero; {where}.",
        markdown(pd.DataFrame(trained)),
        "Imputing and sampling, from sparse counts to arrays of the answer, in float32:",
        markdown(pd.DataFrame(predicted)),
        "The machine: "
        + ", ".join(f"matrix products in {name} {rate:.3g} GFLOP/s" for name, rate in limits.items())
        + f", copying {copying:.3g} GB/s.",
        f"Thinning is {speed_up:.1f} times as fast where nine tenths of the counts are zeros as where none is.",
    ]
    write_page(RESULTS / f"{name}.md", *lines)


if __name__ == "__main__":
    main()
