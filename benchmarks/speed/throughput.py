"""Cells per second of training, imputing and sampling, beside what the machine can do.

python benchmarks/speed/throughput.py

Synthetic cells, a tenth of the counts not zero. Every number is the median of several runs. Writes
benchmarks/results/speed/throughput.md.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from countsdiff import CountsDiffImputer
from countsdiff.core import thin

sys.path.insert(0, str(Path(__file__).parents[1]))
from _markdown import markdown

RESULTS = Path(__file__).parents[1] / "results" / "speed"
N_OBS = 4_096


def seconds(job: Callable[[], object], repeats: int = 5) -> float:
    """Median time of a job, after one run that does not count."""
    job()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def machine() -> dict[str, float]:
    """Rates of a matrix product and of copying memory."""
    a = torch.randn(1024, 1024)
    big, copy = torch.randn(32_000_000), torch.empty(32_000_000)
    return {
        "matmul (GFLOP/s)": 2 * 1024**3 / seconds(lambda: a @ a, 20) / 1e9,
        "copying (GB/s)": 2 * big.nbytes / seconds(lambda: copy.copy_(big), 10) / 1e9,
    }


def cells(n_vars: int) -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = sparse.random(N_OBS, n_vars, density=0.1, format="csr", random_state=0, dtype=np.float32)
    counts.data = rng.poisson(1.0, counts.nnz).astype(np.float32) + 1.0
    adata = ad.AnnData(counts)
    adata.layers["hidden"] = sparse.random(N_OBS, n_vars, density=0.1, format="csr", random_state=1) > 0
    return adata


def training(n_vars: int, n_steps: int = 60) -> tuple[float, float]:
    """Cells per second of ``train``, from its first step to its last, and the GFLOP/s of its matrix products."""
    import lightning.pytorch as pl

    class Clock(pl.Callback):
        def on_train_start(self, *args: object) -> None:
            self.start = time.perf_counter()

        def on_train_end(self, *args: object) -> None:
            self.seconds = time.perf_counter() - self.start

    rates = []
    for _ in range(3):
        model, clock = CountsDiffImputer(cells(n_vars)), Clock()
        model.train(n_steps, validation_size=0.0, enable_progress_bar=False, callbacks=[clock])
        rates.append(128 * model.trainer.global_step / clock.seconds)
    layers = [m for m in model.module.denoiser.backbone.modules() if isinstance(m, torch.nn.Linear)]
    # forward, and backward to weights and to inputs
    flops = 6 * sum(layer.weight.numel() for layer in layers)
    return statistics.median(rates), flops * statistics.median(rates) / 1e9


def predicting(n_vars: int) -> tuple[float, float]:
    """Cells per second of means and of samples in ten steps."""
    adata = cells(n_vars)
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = CountsDiffImputer(adata)
    model.train(2, validation_size=0.0, enable_progress_bar=False)
    mean = seconds(lambda: model.impute(inplace=False), 3)
    sample = seconds(lambda: model.impute(output="sample", n_steps=10, inplace=False), 3)
    return N_OBS / mean, N_OBS / sample


def thinning() -> float:
    """How many times faster counts are thinned on their non-zeros than all of them."""
    counts = torch.as_tensor(cells(1_000).X.toarray()[:1_024])
    p, generator = torch.full_like(counts, 0.5), torch.Generator().manual_seed(0)
    return seconds(lambda: torch.binomial(counts, p, generator)) / seconds(lambda: thin(counts, 0.5, generator))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    warnings.simplefilter("ignore")
    limits, rows = machine(), []
    for n_vars in (1_000, 2_000):
        train, gflops = training(n_vars)
        mean, sample = predicting(n_vars)
        rows.append(
            {
                "genes": n_vars,
                "training (cells/s)": train,
                "of it matrix products (GFLOP/s)": gflops,
                "share of the machine's matmul": gflops / limits["matmul (GFLOP/s)"],
                "imputing, mean (cells/s)": mean,
                "sampling, 10 steps (cells/s)": sample,
            }
        )
        print(rows[-1], flush=True)
    speed_up = thinning()
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Cells per second",
        "`python benchmarks/speed/throughput.py`",
        f"{N_OBS:,} synthetic cells, a tenth of the counts not zero, minibatches of 128, default network; "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads.",
        markdown(pd.DataFrame(rows)),
        "The machine: " + ", ".join(f"{name} {value:.3g}" for name, value in limits.items()) + ".",
        f"`torch.binomial` on all entries, 90 % zeros, takes {speed_up:.1f} times as long as thinning non-zeros alone.",
    ]
    (RESULTS / "throughput.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
