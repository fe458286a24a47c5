"""What the scripts of this folder share: arguments, a table of results."""

import argparse
import os
import sys
from pathlib import Path

import anndata as ad
import pandas as pd
import scanpy as sc
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from _markdown import write_page

RESULTS = Path(__file__).parents[1] / "results" / "scverse"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments that all scripts take; the defaults are the full experiment."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("COUNTSDIFF_DATA"),
        required="COUNTSDIFF_DATA" not in os.environ,
        help="folder that holds sc/ (default: $COUNTSDIFF_DATA)",
    )
    result.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    result.add_argument("--cells", type=int, help="number of cells, to try the script (default: all)")
    result.add_argument("--genes", type=int, default=1000, help="number of variable genes (default: 1000)")
    result.add_argument("--steps", type=int, help="training steps of countsdiff (default: its own)")
    result.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return result


def read(data: Path, name: str, n_cells: int | None) -> ad.AnnData:
    """Read a data set, or the first `n_cells` of its cells in random order."""
    adata = ad.read_h5ad(data / "sc" / f"{name}.h5ad")
    if n_cells is not None and n_cells < adata.n_obs:
        adata = sc.pp.sample(adata, n=n_cells, rng=0, copy=True)
    sc.pp.filter_genes(adata, min_cells=10)
    # numba, which scanpy runs on, resets the number of threads that torch was told to use
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    return adata


def write(rows: list[dict], out: Path, name: str, title: str, about: str) -> None:
    """Write all rows as CSV, and their mean and range over the seeds as a table."""
    out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    table.to_csv(out / f"{name}.csv", index=False)
    keys = [key for key in ("dataset", "method") if key in table]
    scores = [c for c in table.select_dtypes("number") if c != "seed"]
    lines = ["| " + " | ".join([*keys, *scores]) + " |", "|" + "---|" * (len(keys) + len(scores))]
    for key, part in table.groupby(keys, sort=False):
        cells = [f"{part[s].mean():.3f} ({part[s].min():.3f}–{part[s].max():.3f})" for s in scores]
        lines.append("| " + " | ".join([*key, *cells]) + " |")
    seeds = ", ".join(map(str, sorted(table["seed"].unique())))
    write_page(out / f"{name}.md", f"# {title}", f"{about}\nMean (range) over seeds {seeds}.", "\n".join(lines))
    print("\n".join(lines))
