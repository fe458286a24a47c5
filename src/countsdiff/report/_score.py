"""Findings from arrays."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from countsdiff import metrics
from countsdiff.baselines import get_baseline

from ._findings import OURS, Calibration, DataSummary, HeldOut, Invented, LabelFinding, NullCheck, Score

RIVALS = {"size_factor_mean": "size-factor mean", "knn": "kNN smoothing"}
FILLED = 0.5  # rounds to a count
_N_BINS = 20
_NULL_CELLS, _NULL_GENES = (256, 500), 500  # fewer cells the more genes there are,
_NULL_ENTRIES = 3_000_000  # log_mean being slow

Counts = NDArray[np.float32]
Mask = NDArray[np.bool_]


def summarise(blocks: Iterable[tuple[Counts, Mask]]) -> DataSummary:
    """Go once through all cells: counts (0 where missing) and missing entries, a block of cells at a time."""
    depths, n_missing, n_zeros, n_genes, without_ones = [], 0, 0, 0, []
    for counts, missing in blocks:
        depths.append(counts.sum(1, dtype=np.float64))
        n_missing += int(missing.sum())
        n_zeros += int(((counts == 0) & ~missing).sum())
        n_genes = counts.shape[1]
        without_ones.append(~(counts == 1).any(1)[depths[-1] > 0])
    depth = np.concatenate(depths)
    return DataSummary(
        n_cells=len(depth),
        n_genes=n_genes,
        n_missing=n_missing,
        median_depth=float(np.median(depth)),
        depth_variation=float(depth.std() / max(depth.mean(), 1e-12)),
        share_zeros=n_zeros / max(len(depth) * n_genes - n_missing, 1),
        share_without_ones=float(np.mean(np.concatenate(without_ones))) if depth.any() else 0.0,
    )


def compare(held_out: HeldOut, counts: Counts, missing: Mask, seed: int = 0) -> tuple[Score, ...]:
    """Score the model and its simplest rivals on the same entries.

    Parameters
    ----------
    held_out
        Entries and the model's predictions.
    counts, missing
        The scored cells as the rivals see them, held-out entries being missing.
    seed
        Seed of the rivals.
    """
    truth, hidden = held_out.matrix(held_out.truth), held_out.matrix(np.ones(len(held_out.truth), dtype=bool))

    def score(method: str, predicted: NDArray) -> Score:
        values = metrics.evaluate(truth, held_out.matrix(predicted), hidden)
        return Score(method, values["r2"], values["rmse"], values["poisson_loss"], values["spearman_per_cell"])

    scores = [score(OURS, held_out.mean)]
    for name, label in RIVALS.items():
        predicted = get_baseline(name).impute(counts, missing, seed=seed)
        scores.append(score(label, predicted[held_out.rows, held_out.columns]))
    return tuple(scores)


def calibrate(held_out: HeldOut, seed: int = 0) -> Calibration:
    """Compare the predictive distributions with the counts."""
    truth, mean, std = held_out.truth, held_out.mean, held_out.std
    below, at = cdf(truth - 1, mean, std), cdf(truth, mean, std)
    within = cdf(held_out.upper, mean, std) - cdf(held_out.lower - 1, mean, std)
    pit = metrics.randomised_pit(below, at, seed)
    return Calibration(
        interval=held_out.interval,
        coverage=metrics.interval_coverage(truth, held_out.lower, held_out.upper),
        promised=float(within.mean()),
        pit_ks=metrics.pit_ks(below, at, seed),
        pit=tuple(float(n) / len(pit) for n in np.histogram(pit, _N_BINS, (0, 1))[0]),
        relative_bias=metrics.relative_bias(truth, mean),
        zeros_predicted=float(cdf(np.zeros_like(mean), mean, std).mean()),
        zeros_counted=float((truth == 0).mean()),
    )


def cdf(count: NDArray, mean: NDArray, std: NDArray) -> NDArray[np.float64]:
    """Distribution function of the negative binomial law of that mean and standard deviation; Poisson at the least.

    Every head of the model predicts one of the two, so that mean and standard deviation say all of it.
    """
    mean = np.maximum(mean, 1e-12)
    excess = np.square(std) - mean
    poisson = excess <= 1e-5 * mean  # as far as float32 tells
    shape = np.square(mean) / np.where(poisson, 1.0, excess)
    above = np.maximum(count, 0.0) + 1.0
    law = np.where(poisson, special.gammaincc(above, mean), special.betainc(shape, above, shape / (shape + mean)))
    return np.where(count < 0, 0.0, np.clip(law, 0.0, 1.0))


def by_label(
    names: Sequence[str], codes: NDArray[np.intp], zeros: NDArray[np.intp], filled: NDArray[np.intp], held_out: HeldOut
) -> tuple[LabelFinding, ...]:
    """Add up cells by their label, the fullest labels first.

    Parameters
    ----------
    names, codes
        Labels, and the code of every scored cell's.
    zeros, filled
        Number of observed zeros of every cell, and of those that are filled.
    held_out
        Predictions of held-out entries.
    """
    n = len(names)
    entries = codes[held_out.rows]
    sums = (
        np.bincount(codes, minlength=n),
        np.bincount(codes, zeros, n),
        np.bincount(codes, filled, n),
        np.bincount(entries, held_out.truth, n),
        np.bincount(entries, held_out.mean, n),
    )
    found = [
        LabelFinding(str(name), int(cells), int(z), int(f), float(c), float(p))
        for name, cells, z, f, c, p in zip(names, *sums, strict=True)
        if cells
    ]
    return tuple(sorted(found, key=lambda finding: -finding.share_filled))


def null_check(
    counts: Counts,
    missing: Mask,
    denoise: Callable[[Counts, Mask, str], NDArray],
    outputs: Sequence[str],
    seed: int = 0,
) -> NullCheck:
    """Denoise some cells, and the same with the entries of each gene permuted over the cells, gene by gene.

    Parameters
    ----------
    counts, missing
        Cells; 256 to 500, evenly spaced, are looked at.
    denoise
        Called with counts, missing entries and the output wanted.
    outputs
        Outputs to try.
    seed
        Seed of the permutations.

    Notes
    -----
    All genes are permuted and denoised; the pairs of the 500 strongest ones are correlated, on ``log1p`` of cells
    brought to 10,000 counts.
    """
    n_cells = int(np.clip(_NULL_ENTRIES // counts.shape[1], *_NULL_CELLS))
    cells = np.unique(np.linspace(0, len(counts) - 1, n_cells).astype(np.intp))
    genes = np.argsort(-counts.sum(0, dtype=np.float64), kind="stable")[:_NULL_GENES]
    own = np.where(missing[cells], np.float32(np.nan), counts[cells])
    permuted = np.random.default_rng(seed).permuted(own, axis=0)

    def correlation(entries: Counts, output: str | None) -> float:
        absent = np.isnan(entries)
        values = np.where(absent, np.float32(0), entries)
        values = metrics.log_normalise(values if output is None else denoise(values, absent, output))
        return metrics.mean_absolute_correlation(values[:, genes])

    rows = [Invented(o or "counts", correlation(own, o), correlation(permuted, o)) for o in (None, *outputs)]
    return NullCheck(len(cells), len(genes), float(np.sqrt(2 / (np.pi * max(len(cells) - 1, 1)))), tuple(rows))
