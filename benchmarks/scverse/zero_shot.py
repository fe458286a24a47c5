"""A model of pbmc3k imputes cite_pbmc10k: as it is, and after further training on it.

python benchmarks/scverse/zero_shot.py --data DIR

writes benchmarks/results/scverse/zero_shot.csv and .md. Half of the entries of the genes that both data sets have, the
most variable ones of pbmc3k, are hidden. Rivals see the new data set only.
"""

import time
import warnings

import anndata as ad
import numpy as np
from _common import parser, read, write
from scipy import sparse

from countsdiff import CountsDiffImputer, metrics, pp
from countsdiff.baselines import get_baseline


def main() -> None:
    """Run all methods."""
    arguments = parser(__doc__)
    arguments.add_argument("--fine-tune", type=int, default=1000, help="steps of further training (default: 1000)")
    args = arguments.parse_args()
    warnings.simplefilter("ignore")
    reference, query = (read(args.data, name, args.cells) for name in ("pbmc3k", "cite_pbmc10k"))
    reference = reference[:, reference.var_names.isin(query.var_names)].copy()
    genes = reference.var_names[pp.highly_variable(reference, args.genes)]
    tables = [a[:, genes] for a in (reference, query)]
    reference, query = (ad.AnnData(sparse.csr_matrix(a.X), obs=a.obs[[]], var=a.var[[]]) for a in tables)
    counts = query.X.toarray()
    rows = []
    for seed in args.seeds:
        hidden = np.random.default_rng(seed).random(counts.shape) < 0.5

        def record(name: str, predicted, start: float, seed=seed, hidden=hidden) -> None:
            scores = metrics.evaluate(counts, predicted, hidden)
            scores = {k: scores[k] for k in ("rmse", "poisson_loss", "r2", "relative_bias")}
            rows.append({"method": name, "seed": seed, **scores, "seconds": time.perf_counter() - start})
            print(rows[-1], flush=True)

        seen = np.where(hidden, 0, counts)
        for name in ("size_factor_mean", "knn"):
            start = time.perf_counter()
            record(name, get_baseline(name).impute(seen, hidden, seed=seed), start)
        start = time.perf_counter()
        fresh = reference.copy()
        CountsDiffImputer.setup_anndata(fresh)
        model = CountsDiffImputer(fresh, seed=seed)
        model.train(max_steps=args.steps, seed=seed, enable_progress_bar=False)
        holes = query.copy()
        holes.X = np.where(hidden, np.nan, counts).astype(np.float32)
        as_it_is = CountsDiffImputer.load_query_data(holes, model, adapt_means=False)
        record("countsdiff, zero-shot, means not adapted", as_it_is.impute(inplace=False), start)
        tuned = CountsDiffImputer.load_query_data(holes, model)
        record("countsdiff, zero-shot", tuned.impute(inplace=False), start)
        tuned.train(max_steps=args.fine_tune, seed=seed, enable_progress_bar=False)
        record("countsdiff, fine-tuned", tuned.impute(inplace=False), start)
    size = f"{query.n_obs:,} cells × {len(genes):,} genes"
    write(
        rows,
        args.out,
        "zero_shot",
        "From one data set to another",
        f"Trained on pbmc3k, imputing half of the entries of {size} of cite_pbmc10k.",
    )


if __name__ == "__main__":
    main()
