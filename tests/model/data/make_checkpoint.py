"""Makes the checkpoint that every later version has to read, and what it predicts.

python tests/model/data/make_checkpoint.py v1

Run once for every version of the format; a checkpoint that was committed is never made again. ``expected.npz`` holds
the cells, too: the random numbers of a later numpy may be others.
"""

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from countsdiff import CountsDiffImputer

COLUMNS = ("kind", "run", "treated", "age", "depth")


def cells_of(arrays) -> ad.AnnData:
    """Cells as the arrays of ``expected.npz`` describe them."""
    n_obs, n_vars = arrays["counts"].shape
    obs = pd.DataFrame({name: arrays[name] for name in COLUMNS}, index=[f"cell{i}" for i in range(n_obs)])
    obs["kind"] = obs["kind"].astype("category")
    adata = ad.AnnData(arrays["counts"], obs=obs, var=pd.DataFrame(index=[f"gene{j}" for j in range(n_vars)]))
    adata.layers["hidden"] = arrays["hidden"]
    return adata


def answers(model: CountsDiffImputer, adata: ad.AnnData) -> dict[str, np.ndarray]:
    """What the model says of the cells."""
    mean, std = model.impute(adata, return_std=True, inplace=False).values()
    return {"mean": mean, "std": std, "denoised": model.denoise(adata, inplace=False)}


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n_obs, n_vars = 40, 8
    kind = rng.integers(2, size=n_obs)
    counts = rng.poisson(rng.gamma(1.0, 3.0, (2, n_vars))[kind] * rng.gamma(4.0, 0.25, (n_obs, 1)))
    arrays = {
        "counts": counts.astype(np.float32),
        "hidden": rng.random(counts.shape) < 0.3,
        "kind": np.array(["T", "B"])[kind],
        "run": rng.integers(3, size=n_obs),
        "treated": rng.random(n_obs) < 0.5,
        "age": rng.normal(50.0, 10.0, n_obs),
        "depth": rng.gamma(2.0, 0.5, n_obs),
    }
    adata = cells_of(arrays)
    CountsDiffImputer.setup_anndata(
        adata,
        missing_layer="hidden",
        batch_key="run",
        labels_key="kind",
        size_factor_key="depth",
        categorical_covariate_keys=["treated"],
        continuous_covariate_keys=["age"],
    )
    model = CountsDiffImputer(adata, width=8, depth=1)
    model.train(300, batch_size=16, enable_progress_bar=False, accelerator="cpu")
    model.save(folder)
    np.savez_compressed(folder / "expected.npz", **arrays, **answers(model, adata))


if __name__ == "__main__":
    main(Path(__file__).parent / sys.argv[1])
