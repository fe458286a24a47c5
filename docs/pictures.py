"""Draws the pictures of the user guide: a tenth of the entries of PBMC 3k hidden, the default model, seed 0."""

from pathlib import Path

import numpy as np
import scanpy as sc

import countsdiff

FOLDER = Path(__file__).parent / "_static" / "pictures"


def main() -> None:
    truth = countsdiff.datasets.pbmc3k()
    truth = truth[:, truth.var["highly_variable"]].copy()
    hidden = countsdiff.pp.mcar(truth.shape, 0.1, seed=0)
    adata = countsdiff.pp.hide_entries(truth, hidden, layer="counts")
    countsdiff.CountsDiffImputer.setup_anndata(adata, layer="counts", missing_layer="hidden", labels_key="cell_type")
    model = countsdiff.CountsDiffImputer(adata)
    model.train(enable_progress_bar=False)
    model.impute(interval=0.9, return_std=True)
    model.impute(missing="zeros", key_added="zeros")
    states: list = []
    model.generate(1, labels="CD14+ Mono", seed=0, callback=states.append)
    adata.X = model.denoise(output="log_mean", inplace=False)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=30, mask_var=None)
    sc.pp.neighbors(adata)
    sc.tl.umap(adata)

    counts = truth.layers["counts"]
    pl = countsdiff.pl
    pl.recovery(adata, counts, save=FOLDER / "recovery.png")
    pl.calibration(adata, counts, save=FOLDER / "calibration.png")
    pl.coverage(adata, counts, interval=0.9, save=FOLDER / "coverage.png")
    pl.zeros_filled(adata, "cell_type", counts="counts", imputed="zeros", save=FOLDER / "zeros_filled.png")
    pl.uncertainty(adata, save=FOLDER / "uncertainty.png")
    pl.history(model, save=FOLDER / "history.png")
    pl.trajectory(states, gene_names=np.asarray(adata.var_names), save=FOLDER / "trajectory.png")
    pl.schedules(save=FOLDER / "schedules.png")


if __name__ == "__main__":
    main()
