"""Imputation from disk to disk of ever more cells: time and memory of ``countsdiff.distributed.impute``.

python benchmarks/speed/scale.py --cells 10000 100000 1000000 --folder /somewhere/with/6/GB

Synthetic cells: 20 types, 2,000 genes, negative-binomial counts of which 3 % are not zero; 5 % of all entries are
marked as missing. The model is trained once, on the smallest set. Writes benchmarks/results/speed/scale.{csv,md}.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parents[1]))
from _markdown import markdown, write_page

N_VARS, DENSITY, SHARE_MISSING = 2_000, 0.03, 0.05
BLOCK = 10_000
RESULTS = Path(__file__).parents[1] / "results" / "speed"


def write_cells(path: Path, n_obs: int) -> None:
    """Write synthetic cells block by block; the same first cells whatever their number."""
    rng = np.random.default_rng(0)
    # most genes are rare: rates over types and genes that make 3 % of the entries positive
    rate = rng.gamma(0.3, 1.0, (20, N_VARS)) * rng.gamma(0.5, 1.0, N_VARS)
    rate *= _scale_for(rate)
    with h5py.File(path, "w") as file:
        obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_obs)])
        var = pd.DataFrame(index=[f"gene{j}" for j in range(N_VARS)])
        ad.io.write_elem(file, "/", ad.AnnData(obs=obs, var=var))
        for start in range(0, n_obs, BLOCK):
            rng = np.random.default_rng([1, start])
            n = min(BLOCK, n_obs - start)
            mean = rate[rng.integers(20, size=n)] * rng.gamma(4.0, 0.25, (n, 1))
            blocks = {
                "X": sparse.csr_matrix(rng.poisson(mean).astype(np.float32)),
                "layers/missing": sparse.csr_matrix(rng.random((n, N_VARS)) < SHARE_MISSING),
            }
            for name, block in blocks.items():
                if start == 0:
                    ad.io.write_elem(file, name, block, dataset_kwargs={"indptr_dtype": np.dtype(np.int64)})
                else:
                    ad.io.sparse_dataset(file[name]).append(block)


def _scale_for(rate: np.ndarray) -> float:
    """Factor at which the share of positive Poisson counts is the density wanted."""
    low, high = 1e-6, 1e3
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if (1 - np.exp(-middle * rate)).mean() < DENSITY else (low, middle)
    return low


def train(data: Path, model_dir: Path) -> None:
    """Train briefly, on cells that stay on disk: how long imputation takes does not depend on how good the model is."""
    from countsdiff import CountsDiffImputer
    from countsdiff.store import open_store

    adata = open_store(data)
    CountsDiffImputer.setup_anndata(adata, missing_layer="missing")
    model = CountsDiffImputer(adata)
    model.train(200, enable_progress_bar=False)
    model.save(str(model_dir))


def impute(data: Path, model_dir: Path, out: Path, workers: int) -> None:
    """Impute in this process or by Dask workers; print seconds and peak memory in bytes."""
    from contextlib import nullcontext

    from countsdiff.distributed import impute, local_client

    cluster = local_client(workers) if workers > 1 else nullcontext()
    with cluster as client:
        start = time.perf_counter()
        impute(data, model_dir, client, out=out)
        seconds = time.perf_counter() - start
        peaks = [peak_memory(), *([] if client is None else client.run(peak_memory).values())]
    print(seconds, sum(peaks))


def peak_memory() -> int:
    """Bytes that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_own_process(call: str) -> list[float]:
    """Run a function of this file in a process of its own; return the numbers that it prints last."""
    code = f"from pathlib import Path; import scale; scale.{call}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=Path(__file__).parent, text=True, stdout=subprocess.PIPE
    )
    done.check_returncode()
    return [float(number) for number in (done.stdout.splitlines() or [""])[-1].split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--folder", type=Path, required=True, help="where to put data and results, which then go")
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    model_dir, rows = args.folder / "model", []
    for n_obs in sorted(args.cells):
        data, out = args.folder / f"{n_obs}.h5ad", args.folder / "out.h5ad"
        write_cells(data, n_obs)
        if not model_dir.exists():
            in_own_process(f"train(Path({str(data)!r}), Path({str(model_dir)!r}))")
        for workers in args.workers:
            call = f"impute(Path({str(data)!r}), Path({str(model_dir)!r}), Path({str(out)!r}), {workers})"
            seconds, peak = in_own_process(call)
            rows.append(
                {
                    "cells": n_obs,
                    "processes": workers,
                    "seconds": seconds,
                    "cells/s": n_obs / seconds,
                    "peak memory (GB)": peak / 1e9,
                    "input (GB)": data.stat().st_size / 1e9,
                    "output (GB)": out.stat().st_size / 1e9,
                }
            )
            print(rows[-1], flush=True)
            out.unlink()
        data.unlink()
    shutil.rmtree(args.folder)
    report(pd.DataFrame(rows))


def _listed(numbers: pd.Series) -> str:
    return " ".join(str(n) for n in sorted(set(numbers)))


def report(table: pd.DataFrame) -> None:
    """Write the table, and how time grows with the number of cells."""
    lines = [
        "# Imputation of ever more cells, from disk to disk",
        "`python benchmarks/speed/scale.py --cells "
        + " ".join(str(n) for n in sorted(set(table.cells)))
        + " --workers "
        + " ".join(str(n) for n in sorted(set(table.processes)))
        + " --folder …`",
        f"Synthetic cells × {N_VARS:,} genes, {DENSITY:.0%} of the counts not zero, {SHARE_MISSING:.0%} of the entries "
        f"imputed (mean). Memory is that of all processes that compute, at most. {os.cpu_count()} cores, "
        f"{os.environ.get('OMP_NUM_THREADS', 'all')} threads a process.",
        markdown(table),
    ]
    for workers, part in table.groupby("processes"):
        if len(part) > 1:
            slope = np.polyfit(np.log(part.cells), np.log(part.seconds), 1)[0]
            lines.append(f"{workers} process(es): seconds grow as cells to the power of {slope:.3f}.")
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.to_csv(RESULTS / "scale.csv", index=False)
    write_page(RESULTS / "scale.md", *lines)


if __name__ == "__main__":
    main()
