"""What guidance, attrition, steps, birth rules and RePaint do to samples, all with one trained network.

python benchmarks/paper/effects.py heart_fetal_st --seeds 1

trains with labels on four fifths of the cells, hides half of the entries of the others, and draws them in each way.
"""

import time

import numpy as np
from _common import arguments, as_adata, load, score, split, write

from countsdiff import CountsDiffImputer, pp

PLAIN = {"output": "sample", "n_steps": 20}
WAYS = {
    "mean, one pass": {"output": "mean"},
    **{f"{n} steps": {"n_steps": n} for n in (1, 5, 20, 100)},
    **{f"guidance {g:g}": {"guidance_scale": g} for g in (0.0, 0.5, 1.5, 2.0)},
    **{f"attrition {a:g} of the largest": {"attrition": a} for a in (0.02, 0.1, 0.5, 1.0)},
    "attrition capped at 0.02": {"attrition": 0.02, "attrition_kind": "capped"},
    **{f"births {rule}": {"births": rule} for rule in ("stochastic", "round", "poisson")},
    "even times on the schedule": {"spacing": "t"},
    **{f"RePaint, {n} walks": {"method": "repaint", "n_resample": n} for n in (1, 3, 10)},
    "mean of 5 draws": {"n_samples": 5},
    "mean of 5 draws, RePaint, 3 walks": {"n_samples": 5, "method": "repaint"},
}


def main() -> None:
    args = arguments(__doc__, seeds=[1])
    rows = []
    for name in args.datasets:
        data = load(name, args.data)
        for seed in args.seeds:
            train, test = split(len(data.counts), seed)
            adata, query = as_adata(data, train), as_adata(data, test)
            CountsDiffImputer.setup_anndata(adata, labels_key="label")
            model = CountsDiffImputer(adata, seed=seed)
            model.train(seed=seed, enable_progress_bar=False)
            hidden, truth = pp.mcar(query.shape, 0.5, seed=seed), data.counts[test]
            for way, options in WAYS.items():
                start = time.perf_counter()
                answer = model.impute(query, missing=hidden, seed=seed, inplace=False, **{**PLAIN, **options})
                seconds = time.perf_counter() - start
                answer = np.mean(answer, axis=0) if answer.ndim == 3 else answer
                rows.append(
                    {"dataset": name, "way": way, "seed": seed, **score(truth, answer, hidden), "seconds": seconds}
                )
                print(rows[-1], flush=True)
    write(
        "effects",
        "Ways to draw, half of the entries of test cells hidden",
        rows,
        ["dataset", "way"],
        "20 steps if not said.",
    )


if __name__ == "__main__":
    main()
