"""Do clusters and markers come back? Half of the molecules removed, then denoised or deepened.

python benchmarks/scverse/structure.py --data DIR

writes benchmarks/results/scverse/structure.csv and .md. Clusters are k-means (as many as there are labels, ten starts)
on 20 principal components of log-normalised counts, scored by the adjusted Rand index with the labels of the authors.
Markers are the twenty genes of the largest t statistics of each label, scored by how many are those of all molecules.
"""

import time
import warnings

import anndata as ad
import numpy as np
from _common import parser, read, write
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from countsdiff import CountsDiffImputer, metrics, pp
from countsdiff.baselines import get_baseline

LABELS = {"worm_embryo": "cell_type", "pbmc3k": "classified"}
N_MARKERS = 20


def ours(counts, seed: int, steps: int | None):
    """Denoised log-means, the estimate that is meant to be normalised and logged."""
    adata = ad.AnnData(counts)
    CountsDiffImputer.setup_anndata(adata)
    model = CountsDiffImputer(adata, seed=seed)
    model.train(max_steps=steps, seed=seed, enable_progress_bar=False)
    results = {output: model.denoise(output=output, seed=seed, inplace=False) for output in ("log_mean", "mean")}
    # what was taken away, put back in whole numbers: the counts there are stay
    return results | {"deepened": model.deepen(depth=2, output="sample", seed=seed, inplace=False)}


def markers(values, labels) -> list[set[int]]:
    """Genes that are higher in a label than in all other cells by the largest t statistics."""
    found = []
    for label in np.unique(labels):
        x, y = values[labels == label], values[labels != label]
        t = (x.mean(0) - y.mean(0)) / np.sqrt(x.var(0) / len(x) + y.var(0) / len(y) + 1e-9)
        found.append(set(np.argsort(-t)[:N_MARKERS]))
    return found


def main() -> None:
    """Run all methods."""
    args = parser(__doc__).parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for dataset, column in LABELS.items():
        adata = read(args.data, dataset, args.cells)
        adata = adata[:, pp.highly_variable(adata, args.genes)]
        full, labels = adata.X.toarray().astype(np.float32), adata.obs[column].astype(str).to_numpy()
        true_markers = markers(metrics.log_normalise(full), labels)
        for seed in args.seeds:
            half = pp.molecular_split(full, 0.5, seed=seed)[0]
            start = time.perf_counter()
            denoised = {f"countsdiff {k}": v for k, v in ours(half, seed, args.steps).items()}
            seconds = dict.fromkeys(denoised, time.perf_counter() - start)
            for name in ("magic_sqrt", "magic_log"):
                start = time.perf_counter()
                denoised[name] = get_baseline(name).impute(half, None, seed=seed)
                seconds[name] = time.perf_counter() - start
            for name, matrix in {"all molecules": full, "half, raw": half, **denoised}.items():
                values = metrics.log_normalise(np.maximum(matrix, 0))
                components = PCA(20, random_state=seed).fit_transform(values)
                clusters = KMeans(len(np.unique(labels)), n_init=10, random_state=seed).fit_predict(components)
                overlap = [len(a & b) / N_MARKERS for a, b in zip(true_markers, markers(values, labels), strict=True)]
                scores = {"ari": adjusted_rand_score(labels, clusters), "marker_overlap": np.mean(overlap)}
                scores["seconds"] = seconds.get(name, 0.0)
                rows.append({"dataset": dataset, "method": name, "seed": seed, **scores})
                print(rows[-1], flush=True)
    write(
        rows,
        args.out,
        "structure",
        "Clusters and markers",
        "Half of the molecules removed; clusters and markers of each label.",
    )


if __name__ == "__main__":
    main()
