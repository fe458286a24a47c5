"""Read, train, impute and write beside scVI's training alone and MAGIC, in one run.

python benchmarks/speed/end_to_end.py --data FILE.h5ad

The file holds raw counts in X; its cells are drawn with replacement to 10,000 and its 2,000 most variable genes kept. A
tenth of the entries is hidden, which all methods impute. Writes benchmarks/results/speed/end_to_end.md.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from countsdiff import CountsDiffImputer, datasets, metrics, pp
from countsdiff.baselines import get_baseline

sys.path.insert(0, str(Path(__file__).parents[1]))
from _markdown import markdown, write_page

RESULTS = Path(__file__).parents[1] / "results" / "speed"
N_OBS, N_VARS = 10_000, 2_000


def prepare(data: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Counts (10,000 × 2,000), and which of them are hidden."""
    adata = datasets.pbmc3k() if data is None else ad.read_h5ad(data)
    adata = adata[:, pp.highly_variable(adata, min(N_VARS, adata.n_vars))]
    rows = np.random.default_rng(0).permutation(np.arange(N_OBS) % adata.n_obs)
    counts = adata.X[rows]
    counts = (counts.toarray() if sparse.issparse(counts) else np.asarray(counts)).astype(np.float32)
    return counts, pp.mcar(counts.shape, 0.1, seed=1)


def ours(counts: np.ndarray, hidden: np.ndarray, folder: Path, **training: float) -> tuple[np.ndarray, float]:
    """From file to file; `training` are arguments of ``train``."""
    adata = ad.AnnData(sparse.csr_matrix(np.where(hidden, 0, counts)))
    adata.layers["hidden"] = sparse.csr_matrix(hidden)
    adata.write_h5ad(folder / "in.h5ad")
    start = time.perf_counter()
    adata = ad.read_h5ad(folder / "in.h5ad")
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = CountsDiffImputer(adata)
    model.train(**training, enable_progress_bar=False)
    model.impute()
    adata.write_h5ad(folder / "out.h5ad")
    seconds = time.perf_counter() - start
    imputed = adata.layers["imputed"]
    return imputed.toarray() if sparse.issparse(imputed) else imputed, seconds


def rival(name: str, counts: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Imputed counts, seconds of fitting, and seconds in all."""
    method, seen = get_baseline(name), np.where(hidden, np.float32(0), counts)
    start = time.perf_counter()
    fitted = method.fit(seen, hidden, seed=1)
    trained = time.perf_counter()
    imputed = fitted.impute(seen, hidden)
    return imputed, trained - start, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="default: the bundled cells")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    counts, hidden = prepare(args.data)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    rows = []

    def add(method: str, imputed: np.ndarray, **seconds: float) -> None:
        scores = metrics.evaluate(counts, imputed, hidden)
        rows.append({"method": method, **seconds, "R²": scores["r2"], "Poisson loss": scores["poisson_loss"]})
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        imputed, in_all = ours(counts, hidden, Path(folder))
    add("countsdiff, file to file", imputed, **{"training (s)": np.nan, "in all (s)": in_all})
    for name in ("magic_sqrt", "scvi"):
        imputed, fit, whole = rival(name, counts, hidden)
        add(name, imputed, **{"training (s)": fit, "in all (s)": whole})
    table = pd.DataFrame(rows).set_index("method", drop=False)
    lines = [
        "# From file to file beside training scVI",
        "`python benchmarks/speed/end_to_end.py" + (f" --data {args.data.name}" if args.data else "") + "`",
        f"{len(counts):,} cells × {counts.shape[1]:,} genes, a tenth of the entries hidden and imputed; "
        f"{torch.get_num_threads()} threads.",
        markdown(table),
        f"countsdiff takes {in_all / table.loc['scvi', 'training (s)']:.2f} times as long as training scVI with its "
        f"defaults, and {in_all / table.loc['magic_sqrt', 'in all (s)']:.1f} times as long as MAGIC.",
    ]
    write_page(RESULTS / "end_to_end.md", *lines)


if __name__ == "__main__":
    main()
