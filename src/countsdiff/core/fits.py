"""What to correct in a trained denoiser: level, slope, zeros and variance of its laws, drift of its samples.

Users impute entries that were not trained on, mostly in cells that were. Entries that were trained on are predicted too
well, the more so the fewer cells there are: the share of the expected variance that is left in their residuals says by
how much (:func:`fit_memory`), and sets their weight. Held-out cells err on the other side, and are few. Levels (counts
over predictions), and excess variance of the residuals over that of the laws, without calibration and with half of the
entries missing (a tenth for the heart):

========================  ==============  ==============  ==================
data                      trained on      held-out cells  entries in question
========================  ==============  ==============  ==================
PBMC 3k                   .97, .71        1.06, 1.53      1.00, 1.21
PBMC 3k, 400 cells        .84, .15        1.03, 1.09      1.03, .99
fetal heart, 300 spots    .97, .29        .97, .66        .97, .52
fetal atlas, 500 cells    .87, .08        1.13, 1.04      1.08, 1.11
worm embryo, 800 cells    .92, .27        1.03, 1.59      .99, .78
========================  ==============  ==============  ==================
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from countsdiff.core.heads import as_shift, multiplier
from countsdiff.core.interfaces import Context, DenoiserFn, Intensity
from countsdiff.core.loss import negative_binomial_loss
from countsdiff.core.random import RowGenerator
from countsdiff.core.sampler import SamplerConfig, at_most, largest_mean, reverse_step

_FEW_ZEROS = 1e-3  # share of the counts
_LEVELS = 5.0  # logarithm of the largest level that is looked for
_PRECISION = 1e-6  # of logarithms of shapes and tails: data tell less, and every halving looks at all counts


def fit_level(counts: Tensor, mean: Tensor, spread: float = math.inf) -> float:
    """Factor that makes predictions add up to the counts they are for.

    Training balances the two, but with dropout on; without it predictions came out 1 to 5 % too high.

    Parameters
    ----------
    counts
        Counts that were hidden and predicted, shape ``(n,)``.
    mean
        Their predicted means, same shape.
    spread
        Prior standard deviation of levels around 1: the level is shrunk towards 1 as far as the residuals leave it
        uncertain.

    Returns
    -------
    float
        Σ counts / Σ means, or less far from 1; 1 where there is no count to go by.
    """
    counts, mean = counts.to(torch.float64), mean.to(torch.float64)
    total, expected = float(counts.sum()), float(mean.sum())
    if not total > 0.0:
        return 1.0
    uncertain = float((counts - mean).square().sum()) / expected**2
    return math.exp(math.log(total / expected) / (1.0 + uncertain / spread**2))


def fit_level_of_law(counts: Tensor, mean: Tensor, shape: Tensor) -> float:
    """Level at which negative-binomial laws make counts most likely, see :func:`fit_level`.

    It does not make predictions add up to the counts. Where one variable holds half of all counts, and varies widely,
    sums are its luck; here entries count by how well they are known, and the others speak, too.

    Parameters
    ----------
    counts
        Counts that were hidden and predicted, shape ``(n,)``.
    mean, shape
        Their predicted laws, same shape.

    Returns
    -------
    float
        a, so that Σ (count − a mean) / (1 + a mean / shape) is 0; 1 where there is no count to go by.
    """
    counts, mean, shape = (v.to(torch.float64) for v in (counts, mean, shape))
    if not float(counts.sum()) > 0.0:
        return 1.0

    def too_low(log_level: float) -> bool:
        levelled = math.exp(log_level) * mean
        return bool(((counts - levelled) / (1.0 + levelled / shape)).sum() > 0.0)

    return math.exp(_bisect(too_low, -_LEVELS, _LEVELS))


def fit_slope(counts: Tensor, mean: Tensor, base: Tensor, spread: float = math.inf) -> float:
    """Factor of a network's outputs that makes cells it was not trained on most likely.

    A network that has memorised few cells is too bold about others: it moves means too far away from the base rate
    (size factor × mean of the gene), and the right factor is below 1, down to 0 where there was nothing to learn. It is
    the calibration slope of clinical prediction models (Cox 1958; Steyerberg 2019), as a level is their calibration in
    the large, which is left free here.

    Parameters
    ----------
    counts
        Counts that were hidden and predicted, shape ``(n,)``.
    mean, base
        Their predicted means, and base rates, positive, same shape.
    spread
        Prior standard deviation of slopes around 1.

    Returns
    -------
    float
        The slope, within [0, 1.25]; 1 where there is no count to go by.
    """
    counts, mean, base = (v.to(torch.float64) for v in (counts, mean, base))
    total = counts.sum()
    if not float(total) > 0.0:
        return 1.0
    output = as_shift(torch.log(mean / base))
    index = max(float((counts - mean).square().sum() / mean.sum()), 1.0)  # counts are more spread than Poisson's

    def surprise(slope: float) -> float:
        predicted = base * multiplier(slope * output)
        likelihood = float(torch.xlogy(counts, predicted).sum() - total * torch.log(predicted.sum()))
        return 0.5 * ((slope - 1.0) / spread) ** 2 - likelihood / index

    low, high = 0.0, 1.25
    for _ in range(12):  # thirds, to a hundredth
        third = (high - low) / 3.0
        low, high = (low, high - third) if surprise(low + third) < surprise(high - third) else (low + third, high)
    return 0.5 * (low + high)


def fit_memory(counts: Tensor, mean: Tensor, shape: Tensor) -> float:
    """How far trained counts were not memorised: the share of the expected excess variance left in their residuals.

    Parameters
    ----------
    counts
        Counts that were hidden and predicted, shape ``(n,)``.
    mean, shape
        Their predicted negative-binomial laws, same shape.

    Returns
    -------
    float
        Variance of the residuals beyond Poisson over that of the laws, within [0, 1]: 1 where nothing was memorised.
    """
    counts, mean, shape = (v.to(torch.float64) for v in (counts, mean, shape))
    expected = float((mean.square() / shape).sum())
    left = float(((counts - mean).square() - mean).sum())
    return min(max(left / expected, 0.0), 1.0) if expected > 0.0 else 1.0


def fit_sharpness(counts: Tensor, mean: Tensor, shape: Tensor, weight: Tensor | float = 1.0) -> float:
    """Find the factor of all shapes that makes the predicted number of zeros the true one.

    Shapes are fitted with dropout on, which blurs means; without it laws came out too wide, and zeros too many. Where
    hardly any count is zero, as in bulk data, zeros are the far end of the laws and tell nothing of their width: there
    counts of larger means are thinned to a mean of 1 before, which leaves negative-binomial laws their shapes.

    Parameters
    ----------
    counts
        Counts that were hidden and predicted, shape ``(n,)``.
    mean, shape
        Their predicted negative-binomial laws, same shape.
    weight
        How much each of them counts, same shape.

    Returns
    -------
    float
        κ, so that Σ (1 + mean / (κ shape))^(−κ shape) is the number of zeros, of the thinned counts where they were
        thinned; within [1/2, 2], as what goes beyond is not the blur of dropout.
    """
    counts, mean, shape = (v.to(torch.float64) for v in (counts, mean, shape))
    weight = weight * torch.ones_like(mean)
    n_zeros, share = (weight * (counts == 0)).sum(), torch.ones_like(mean)
    if n_zeros < _FEW_ZEROS * weight.sum():
        share = 1.0 / mean.clamp(min=1.0)
        n_zeros = (weight * (1.0 - share) ** counts).sum()  # as expected of the thinned counts

    def surplus(log_factor: float) -> bool:
        sharp = shape * math.exp(log_factor)
        return bool((weight * torch.exp(-sharp * torch.log1p(share * mean / sharp))).sum() > n_zeros)

    return math.exp(_bisect(surplus, -math.log(2.0), math.log(2.0)))


def fit_tail(counts: Tensor, mean: Tensor, shape: Tensor, weight: Tensor | float = 1.0) -> float:
    """Find the mean beyond which predictive laws have to become narrower or wider, to have the residuals' variance.

    A likelihood fits dispersion where most entries are, at means below one. The few entries with large means, which
    make most of the variance, can then get laws that do not fit them. Here shapes become shape · (1 + mean / tail), or
    shape / (1 + mean / |tail|) for a negative tail: untouched at small means.

    Parameters
    ----------
    counts
        Counts that were hidden and predicted, shape ``(n,)``.
    mean, shape
        Their predicted negative-binomial laws, same shape.
    weight
        How much each of them counts, same shape.

    Returns
    -------
    float
        The tail, so that the sum of the variances is that of squared residuals; positive where laws were too wide,
        negative where they were too narrow.
    """
    counts, mean, shape = (v.to(torch.float64) for v in (counts, mean, shape))
    target = (weight * ((counts - mean).square() - mean)).sum()
    excess = weight * mean.square() / shape
    too_wide = bool(excess.sum() > target)

    def bends_too_much(log_tail: float) -> bool:
        bend = 1.0 + mean / math.exp(log_tail)
        return bool((excess / bend).sum() < target) if too_wide else bool((excess * bend).sum() > target)

    tail = math.exp(_bisect(bends_too_much, -10.0, 25.0))
    return tail if too_wide else -tail


def fit_means(counts: Tensor, mean: Tensor, index: Tensor) -> Tensor:
    """Find factors of all variables' means for other data, where another chemistry has other capture efficiencies.

    Empirical Bayes: factors are drawn from a gamma law of mean 1, sums of counts from Poisson laws, once both sums are
    divided by the index of dispersion. How much factors differ, the width of the gamma law, is what makes all sums of
    counts most likely. Where factors do not differ, or there is little to see, they stay near 1.

    Parameters
    ----------
    counts
        Sums over observations of counts that were hidden and predicted, shape ``(n_vars,)``.
    mean
        Sums of their predicted means, same shape.
    index
        Variance of each sum of counts over its mean, at least 1, same shape.

    Returns
    -------
    Tensor
        Factors, positive, shape ``(n_vars,)``; 1 where nothing was predicted.
    """
    counts, mean = counts / index, mean / index
    predicted = mean > 0.0

    def surprise(log_shape: float) -> float:
        shape = torch.full_like(mean, math.exp(log_shape))
        return float(negative_binomial_loss(counts, shape, mean)[predicted].sum())

    shape = math.exp(min((0.25 * step for step in range(-4, 37)), key=surprise))
    return torch.where(predicted, (counts + shape) / (mean + shape), 1.0)


@torch.no_grad()
def fit_drift(
    denoiser: DenoiserFn, contexts: list[Context], generators: list[RowGenerator], n_steps: int
) -> list[float]:
    """Find the factors of all intensities that keep their sum constant along sampled paths, luck of the draw aside.

    Given what was seen, an intensity is the expectation of all later ones (a martingale), so that its average over
    cells should stay what it was at p = 0. A network is not that exact about counts that it has drawn itself: in a
    fetal atlas of 44 molecules per cell samples of 20 steps came out 7 % above those of one. No truth is needed to see
    and to undo that.

    Paths differ in how much was born, though, and intensities rightly follow: where few entries hold much of what there
    is, as in the lung, their sum differs by a tenth from path to path. What births teach by the predicted law itself is
    known, μ → μ (r + b) / (r + μ Δp) for b births over Δp, zero on average, and no drift (a control variate).

    Parameters
    ----------
    denoiser
        Intensity of births, all other calibration done.
    contexts
        Batches of cells with noised entries.
    generators
        Source of randomness of each batch.
    n_steps
        Number of reverse steps, of equal survival probability.

    Returns
    -------
    list of float
        Factors at p = 0 (which is 1), 1 / n_steps, …, 1 − 1 / n_steps; within [1/2, 2].
    """
    states = [torch.zeros_like(context.counts) for context in contexts]
    factors: list[float] = []
    bounds: list[Tensor | None] = []
    expected = 0.0
    for step in range(n_steps):
        p_t, p_s = step / n_steps, (step + 1) / n_steps
        intensities = [
            denoiser(x, torch.full_like(x[:, :1], p_t), context) for x, context in zip(states, contexts, strict=True)
        ]
        bounds = bounds or [largest_mean(i) for i in intensities]
        intensities = [at_most(i, bound) for i, bound in zip(intensities, bounds, strict=True)]
        total = sum(_sum(i.mean, c.noised) for i, c in zip(intensities, contexts, strict=True))
        expected = expected or total
        factors.append(min(max(expected / total, 0.5), 2.0) if total > 0.0 else 1.0)
        intensities = [Intensity(factors[-1] * i.mean, i.shape) for i in intensities]
        intensities = [at_most(i, bound) for i, bound in zip(intensities, bounds, strict=True)]
        for index, (i, c, generator) in enumerate(zip(intensities, contexts, generators, strict=True)):
            state = reverse_step(states[index], i, p_t, p_s, c.noised, generator, SamplerConfig())
            if i.shape is not None:
                due = i.mean * (p_s - p_t)
                expected += _sum(i.mean * (state - states[index] - due) / (i.shape + due), c.noised)
            states[index] = state
    return factors


def _sum(values: Tensor, where: Tensor) -> float:
    return float(values[where].sum(dtype=torch.float64))


def _bisect(more: Callable[[float], bool], low: float, high: float) -> float:
    """Return the point up to which `more` holds, or the end of the interval where it holds nowhere or everywhere."""
    while high - low > _PRECISION:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if more(middle) else (low, middle)
    return 0.5 * (low + high)
