"""Do clusters and markers come back? Half of the molecules removed, then denoised or deepened.

python benchmarks/scverse/structure.py --data DIR

writes benchmarks/results/scverse/structure.csv and .md. Clusters are those of scanpy's pipeline with its defaults (50
principal components of log-normalised counts, 15 neighbours, Leiden at resolution 1), and of k-means on 20 components
(as many as there are labels, ten starts), scored by the adjusted Rand index with the labels of the authors. Markers are
the twenty genes of the largest t statistics of each label, scored by how many are those of all molecules; those of
"countsdiff deepened" by the mean t statistics of forty draws, so that what was drawn does not pass for measured.
"""

import time
import warnings

import anndata as ad
import numpy as np
import scanpy as sc
from _common import parser, read, write
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from countsdiff import CountsDiffImputer, metrics, pp
from countsdiff.baselines import get_baseline

LABELS = {"worm_embryo": "cell_type", "pbmc3k": "classified"}
N_MARKERS, N_DRAWS = 20, 40


def ours(counts, seed: int, steps: int | None) -> dict[str, list]:
    """Matrices to cluster, each with those to find markers in, by method."""
    adata = ad.AnnData(counts)
    CountsDiffImputer.setup_anndata(adata)
    model = CountsDiffImputer(adata, seed=seed)
    model.train(max_steps=steps, seed=seed, enable_progress_bar=False)
    results = {f"countsdiff {o}": [model.denoise(output=o, seed=seed, inplace=False)] for o in ("log_mean", "mean")}
    # what was taken away, put back: the counts there are stay
    drawn = model.deepen(depth=2, output="sample", n_samples=N_DRAWS, seed=seed, inplace=False)
    results["countsdiff deepened"] = [model.deepen(depth=2, output="log_mean", inplace=False), *drawn]
    return results | {"countsdiff deepened, one draw": [drawn[0]]}


def t_statistics(values, labels) -> np.ndarray:
    """How much higher genes are in a label than in all other cells, shape ``(n_labels, n_genes)``."""
    rows = []
    for label in np.unique(labels):
        x, y = values[labels == label], values[labels != label]
        rows.append((x.mean(0) - y.mean(0)) / np.sqrt(x.var(0) / len(x) + y.var(0) / len(y) + 1e-9))
    return np.stack(rows)


def markers(matrices, labels) -> list[set[int]]:
    """Genes of the largest t statistics of each label, of their means where there are several matrices."""
    t = np.mean([t_statistics(metrics.log_normalise(np.maximum(m, 0)), labels) for m in matrices], axis=0)
    return [set(np.argsort(-row)[:N_MARKERS]) for row in t]


def agreement(matrix, labels, seed: int) -> dict[str, float]:
    """Adjusted Rand indices of clusters with the labels."""
    values = metrics.log_normalise(np.maximum(matrix, 0))
    cells = ad.AnnData(PCA(50, random_state=seed).fit_transform(values).astype(np.float32))
    sc.pp.neighbors(cells, use_rep="X", random_state=seed)
    sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    components = PCA(20, random_state=seed).fit_transform(values)
    k_means = KMeans(len(np.unique(labels)), n_init=10, random_state=seed).fit_predict(components)
    return {
        "ari_leiden": adjusted_rand_score(labels, cells.obs["leiden"]),
        "ari_k_means": adjusted_rand_score(labels, k_means),
    }


def main() -> None:
    """Run all methods."""
    args = parser(__doc__).parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for dataset, column in LABELS.items():
        adata = read(args.data, dataset, args.cells)
        adata = adata[:, pp.highly_variable(adata, args.genes)]
        full, labels = adata.X.toarray().astype(np.float32), adata.obs[column].astype(str).to_numpy()
        true_markers = markers([full], labels)
        for seed in args.seeds:
            half = pp.molecular_split(full, 0.5, seed=seed)[0]
            start = time.perf_counter()
            answers = {"all molecules": [full], "half, raw": [half], **ours(half, seed, args.steps)}
            seconds = dict.fromkeys(answers, time.perf_counter() - start) | {"all molecules": 0.0, "half, raw": 0.0}
            for name in ("magic_sqrt", "magic_log"):
                start = time.perf_counter()
                answers[name] = [get_baseline(name).impute(half, None, seed=seed)]
                seconds[name] = time.perf_counter() - start
            for name, (matrix, *draws) in answers.items():
                found = markers(draws or [matrix], labels)
                overlap = np.mean([len(a & b) / N_MARKERS for a, b in zip(true_markers, found, strict=True)])
                scores = agreement(matrix, labels, seed) | {"marker_overlap": overlap, "seconds": seconds[name]}
                rows.append({"dataset": dataset, "method": name, "seed": seed, **scores})
                print(rows[-1], flush=True)
    write(
        rows,
        args.out,
        "structure",
        "Clusters and markers",
        "Half of the molecules removed; clusters and markers of each label. Those of deepened cells are by log_mean, "
        "and by forty draws.",
    )


if __name__ == "__main__":
    main()
