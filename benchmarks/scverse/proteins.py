"""CITE-seq with the proteins of half of the cells hidden: countsdiff, totalVI and nearest neighbours by RNA.

python benchmarks/scverse/proteins.py --data DIR

writes benchmarks/results/scverse/proteins.csv and .md. Scores are means over the proteins: Spearman over the hidden
cells, and root mean squared error of counts and of log1p counts.
"""

import time
import warnings

import anndata as ad
import mudata
import numpy as np
import scvi
from _common import parser, read, write
from scipy import sparse, stats
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from countsdiff import CountsDiffImputer, metrics, pp

N_NEIGHBORS = 30


def ours(rna, proteins, hidden, seed: int, steps: int | None):
    """One model of both modalities; cells without proteins lack that modality."""
    tables = {"rna": rna.copy(), "prot": ad.AnnData(sparse.csr_matrix(proteins[~hidden].astype(np.float32)))}
    tables["prot"].obs_names = rna.obs_names[~hidden]
    tables["prot"].var_names = [f"protein{j}" for j in range(proteins.shape[1])]
    mdata = mudata.MuData(tables)
    CountsDiffImputer.setup_mudata(mdata)
    model = CountsDiffImputer(mdata, seed=seed)
    model.train(max_steps=steps, seed=seed, enable_progress_bar=False)
    row = {name: i for i, name in enumerate(mdata.obs_names)}
    return model.impute(inplace=False)["prot"][[row[name] for name in rna.obs_names]]


def totalvi(rna, proteins, hidden, seed: int, epochs: int | None):
    """TotalVI takes a batch without a single protein count for one without proteins."""
    scvi.settings.seed = seed
    adata = rna.copy()
    adata.obsm["proteins"] = np.where(hidden[:, None], 0, proteins)
    adata.obs["panel"] = np.where(hidden, "without", "with")
    scvi.model.TOTALVI.setup_anndata(adata, protein_expression_obsm_key="proteins", batch_key="panel")
    model = scvi.model.TOTALVI(adata)
    model.train(max_epochs=epochs, enable_progress_bar=False)
    _, predicted = model.get_normalized_expression(
        transform_batch="with", n_samples=25, include_protein_background=True, return_numpy=True
    )
    return predicted


def neighbours(rna, proteins, hidden, seed: int, _):
    """Mean of the nearest cells that have proteins, by principal components of log-normalised RNA."""
    components = PCA(50, random_state=seed).fit_transform(metrics.log_normalise(rna.X))
    nearest = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(components[~hidden])
    return proteins[~hidden][nearest.kneighbors(components, return_distance=False)].mean(1)


def score(truth, predicted) -> dict[str, float]:
    """Scores of the hidden cells."""
    spearman = [stats.spearmanr(*pair).statistic for pair in zip(truth.T, predicted.T, strict=True)]
    squares = np.square(truth - predicted).mean(0), np.square(np.log1p(truth) - np.log1p(predicted)).mean(0)
    return {"spearman": np.mean(spearman), "rmse": np.sqrt(squares[0]).mean(), "rmse_log1p": np.sqrt(squares[1]).mean()}


def main() -> None:
    """Run all methods."""
    arguments = parser(__doc__)
    arguments.add_argument("--epochs", type=int, help="epochs of totalVI (default: its own)")
    args = arguments.parse_args()
    warnings.simplefilter("ignore")
    adata = read(args.data, "cite_pbmc10k", args.cells)
    proteins = np.asarray(adata.obsm["protein_counts"], dtype=np.float64)
    rna = adata[:, pp.highly_variable(adata, args.genes)]
    rna = ad.AnnData(sparse.csr_matrix(rna.X), obs=rna.obs[[]], var=rna.var[[]])
    rows = []
    for seed in args.seeds:
        hidden = np.random.default_rng(seed).random(rna.n_obs) < 0.5
        for name, method, length in (
            ("countsdiff", ours, args.steps),
            ("totalVI", totalvi, args.epochs),
            ("knn", neighbours, None),
        ):
            start = time.perf_counter()
            predicted = np.asarray(method(rna, proteins, hidden, seed, length))
            scores = score(proteins[hidden], predicted[hidden]) | {"seconds": time.perf_counter() - start}
            rows.append({"method": name, "seed": seed, **scores})
            print(rows[-1], flush=True)
    write(
        rows,
        args.out,
        "proteins",
        "Proteins of cells without them",
        f"cite_pbmc10k, {rna.n_obs:,} cells, proteins of half of them hidden.",
    )


if __name__ == "__main__":
    main()
