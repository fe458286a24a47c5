"""Zero-shot: train on one data set, impute another one with every covariate dropped.

python benchmarks/paper/zero_shot.py cite_pbmc10k pbmc3k --seeds 1 2 3

The first data set is trained on (with labels), the second is imputed with half of its entries hidden, with the means of
genes adapted to it and without. Genes that the second does not have are absent (NaN), not zeros. Beside it: the same
model trained on the second set itself, and two methods that need no training.
"""

import anndata as ad
import numpy as np
import scanpy as sc
from _common import arguments, write
from scipy import sparse

from countsdiff import CountsDiffImputer, metrics, pp
from countsdiff.baselines import get_baseline


def read(name: str, data_dir) -> ad.AnnData:
    adata = ad.read_h5ad(data_dir / "sc" / f"{name}.h5ad")
    sc.pp.filter_genes(adata, min_cells=10)
    adata.var_names_make_unique()
    return adata


def main() -> None:
    args = arguments(__doc__, seeds=[1])
    source_name, target_name = args.datasets
    source, target = read(source_name, args.data), read(target_name, args.data)
    from _protocol import DATASETS

    source = source[:, pp.highly_variable(source, 1000)].copy()
    shared = [gene for gene in source.var_names if gene in target.var_names]
    counts = target[:, shared].X.toarray().astype(np.float32)
    columns = source.var_names.get_indexer(shared)
    print(f"{len(shared)} of {source.n_vars} genes shared", flush=True)
    rows = []
    for seed in args.seeds:
        source.obs["label"] = source.obs[DATASETS[source_name]].astype(str)
        trained = ad.AnnData(source.X, obs=source.obs[["label"]], var=source.var[[]])
        CountsDiffImputer.setup_anndata(trained, labels_key="label")
        model = CountsDiffImputer(trained, seed=seed)
        model.train(seed=seed, enable_progress_bar=False)
        hidden = pp.mcar(counts.shape, 0.5, seed=seed)
        query = ad.AnnData(np.where(hidden, np.nan, counts).astype(np.float32), var=target[:, shared].var[[]])
        models = {
            adapt_means: CountsDiffImputer.load_query_data(query, model, adapt_means=adapt_means)
            for adapt_means in (False, True)
        }

        own = ad.AnnData(sparse.csr_matrix(np.where(hidden, 0, counts)))
        own.layers["hidden"] = sparse.csr_matrix(hidden)
        CountsDiffImputer.setup_anndata(own, missing_layer="hidden")
        own_model = CountsDiffImputer(own, seed=seed)
        own_model.train(seed=seed, enable_progress_bar=False)
        answers = {
            "zero-shot, means not adapted": models[False].impute(inplace=False)[:, columns],
            "zero-shot": models[True].impute(inplace=False)[:, columns],
            "trained on the target itself": own_model.impute(inplace=False),
            "size_factor_mean of the target": get_baseline("size_factor_mean").impute(counts, hidden),
            "knn in the target": get_baseline("knn").impute(counts, hidden, seed=seed),
        }
        for method, answer in answers.items():
            rows.append({"source": source_name, "target": target_name, "method": method, "seed": seed})
            scores = metrics.evaluate(counts, answer, hidden)  # of means: they have no zeros to count
            rows[-1] |= {
                name: scores[name] for name in ("rmse", "r2", "poisson_loss", "spearman_per_cell", "relative_bias")
            }
            print(rows[-1], flush=True)
    write("zero_shot", "Zero-shot imputation of another data set", rows, ["source", "target", "method"])


if __name__ == "__main__":
    main()
