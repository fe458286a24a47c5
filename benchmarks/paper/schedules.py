"""Schedules, loss weights, heads and times in training: what each does to accuracy and samples.

python benchmarks/paper/schedules.py pbmc3k --seeds 1

hides half of all entries, trains once for every design, and imputes them.
"""

import time

import anndata as ad
import numpy as np
from _common import arguments, load, score, write
from scipy import sparse

from countsdiff import CountsDiffImputer, metrics, pp

DESIGNS = {
    "default": {},
    "rate head": {"head": "rate"},
    "x0 head": {"head": "x0"},
    "rate head, cosine, paper weight, times in t (CountsDiff)": {"head": "rate", "weight": "paper", "spacing": "t"},
    "rate head, blackout, paper weight, times in t (Blackout)": {
        "head": "rate",
        "weight": "paper",
        "spacing": "t",
        "schedule": "blackout",
    },
    "linear, elbo, times in t": {"schedule": "linear", "spacing": "t"},
    "cosine, elbo, times in t": {"spacing": "t"},
    "logit_linear, elbo, times in t": {"schedule": "logit_linear", "spacing": "t"},
    "jump, unit, times in t": {"schedule": "jump", "weight": "unit", "spacing": "t"},
    "cosine, paper weight": {"weight": "paper"},
    "cosine, unit weight": {"weight": "unit"},
}
# the birth rule and grid each family samples with
SAMPLING = {"(CountsDiff)": {"spacing": "t"}, "(Blackout)": {"spacing": "t", "births": "round"}}


def main() -> None:
    args = arguments(__doc__, seeds=[1])
    rows = []
    for name in args.datasets:
        data = load(name, args.data)
        for seed in args.seeds:
            hidden = pp.mcar(data.counts.shape, 0.5, seed=seed)
            for design, settings in DESIGNS.items():
                adata = ad.AnnData(sparse.csr_matrix(np.where(hidden, 0, data.counts)))
                adata.layers["hidden"] = sparse.csr_matrix(hidden)
                start = time.perf_counter()
                CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
                model = CountsDiffImputer(adata, seed=seed, **settings)
                model.train(seed=seed, enable_progress_bar=False)
                seconds = time.perf_counter() - start
                mean = metrics.evaluate(data.counts, model.impute(inplace=False), hidden)
                how = next((v for key, v in SAMPLING.items() if design.endswith(key)), {})
                draw = model.impute(output="sample", n_steps=20, seed=seed, inplace=False, **how)
                row = {
                    "dataset": name,
                    "design": design,
                    "seed": seed,
                    "r2": mean["r2"],
                    "poisson": mean["poisson_loss"],
                }
                sample = {f"sample {key}": value for key, value in score(data.counts, draw, hidden).items()}
                rows.append(row | sample | {"seconds": seconds})
                print(rows[-1], flush=True)
    text = "r2 and poisson of the mean in one pass; samples in 20 steps."
    write("schedules", "Designs, half of all entries hidden", rows, ["dataset", "design"], text)


if __name__ == "__main__":
    main()
