"""The forward process (binomial thinning) and its exact reverse bridge, in terms of survival probabilities."""

from dataclasses import dataclass

import torch
from torch import Tensor

from countsdiff.core.counting import binomial_quantile
from countsdiff.core.masks import only
from countsdiff.core.random import RowGenerator


@dataclass(frozen=True)
class NoisedCounts:
    """Counts after thinning, and what the thinning took away.

    Attributes
    ----------
    x_t
        Surviving counts on noised entries, zero elsewhere; shape ``(n_obs, n_vars)``.
    lost
        x_0 − x_t on noised entries, zero elsewhere: what a denoiser has to predict.
    """

    x_t: Tensor
    lost: Tensor


def thin(counts: Tensor, p: Tensor | float, generator: torch.Generator | None = None) -> Tensor:
    """Binomial thinning: every molecule survives on its own with probability `p`.

    Parameters
    ----------
    counts
        Whole numbers as float32; none may be NaN, see :func:`noise` for missing ones.
    p
        Survival probabilities in [0, 1], broadcast against `counts`.
    generator
        Source of randomness, on the device of `counts`.

    Returns
    -------
    Tensor
        x_t ~ Bin(counts, p), same shape as `counts`.

    Raises
    ------
    TypeError
        If counts are integers in type, too: torch thins floating ones only.
    ValueError
        If counts on the CPU are negative or NaN. A GPU would have to wait to find out.

    Examples
    --------
    >>> import torch
    >>> from countsdiff import core
    >>> core.thin(torch.tensor([0.0, 3.0, 40.0]), p=1.0)
    tensor([ 0.,  3., 40.])

    Notes
    -----
    Single-cell counts are nine tenths zeros, and :func:`torch.binomial` passes over them as fast as finding the others
    takes.
    """
    _check_floating(counts)
    if counts.device.type == "cpu" and not bool((counts >= 0.0).all()):  # torch.binomial never ends with a NaN
        raise ValueError("Counts to thin are negative, or NaN; leave missing ones out.")
    probability = torch.as_tensor(p, dtype=counts.dtype, device=counts.device).expand_as(counts)
    if counts.device.type == "mps":  # for which torch has no binomial
        u = torch.rand(counts.shape, generator=generator, device=counts.device)
        return binomial_quantile(u, counts, probability)
    return torch.binomial(counts, probability, generator=generator)


def noise(x_0: Tensor, p: Tensor, noised: Tensor, generator: torch.Generator | None = None) -> NoisedCounts:
    """Forward process on the noised entries: x_t | x_0 ~ Bin(x_0, p).

    Parameters
    ----------
    x_0
        Counts, shape ``(n_obs, n_vars)``; entries that are not noised may hold anything.
    p
        Survival probability of each row, shape ``(n_obs, 1)``.
    noised
        Entries to noise, boolean, shape ``(n_obs, n_vars)``.
    generator
        Source of randomness.
    """
    target = only(x_0, noised)
    x_t = thin(target, p, generator)
    return NoisedCounts(x_t=x_t, lost=target - x_t)


def _check_floating(counts: Tensor) -> None:
    if not counts.is_floating_point():  # whose type a probability would take, and be 0
        raise TypeError(f"Counts are whole numbers in floating point; got {counts.dtype}: take counts.float().")


def attrition_limit(p_t: float, p_s: float) -> float:
    """Largest share of molecules that a reverse step t → s may kill: σ_max = min(1, (1 − p_s) / p_t)."""
    return 1.0 if p_t == 0.0 else min(1.0, (1.0 - p_s) / p_t)


def birth_exposure(p_t: float, p_s: float, attrition: float) -> float:
    """Survival probability that a reverse step t → s has to make up for by births: p_s − (1 − σ) p_t.

    Divided by 1 − p_t it is the chance β that a molecule lost so far is born in this step; then x_s | x_0 keeps its law
    Bin(x_0, p_s) for every σ, because (1 − σ) p_t + β (1 − p_t) = p_s.

    Raises
    ------
    ValueError
        If the step does not go from fewer survivors to more, or σ lies outside [0, σ_max], where β would leave [0, 1].
    """
    if not p_t < p_s:
        raise ValueError(f"A reverse step goes to a larger survival probability; got p = {p_t:g} → {p_s:g}.")
    limit = attrition_limit(p_t, p_s)
    if not 0.0 <= attrition <= limit:
        raise ValueError(f"Attrition {attrition:g} lies outside [0, {limit:g}] for the step p = {p_t:g} → {p_s:g}.")
    return p_s - (1.0 - attrition) * p_t


def survivors(x_t: Tensor, attrition: float, generator: RowGenerator) -> Tensor:
    """Molecules that outlive a reverse step with attrition σ: Bin(x_t, 1 − σ)."""
    if attrition == 0.0:
        return x_t
    return binomial_quantile(generator.uniform(*x_t.shape[1:]), x_t, torch.full_like(x_t, 1.0 - attrition))


def bridge(
    x_t: Tensor, lost: Tensor, p_t: float, p_s: float, *, attrition: float = 0.0, generator: RowGenerator
) -> Tensor:
    """Exact reverse step x_t → x_s when the lost counts x_0 − x_t are known.

    Parameters
    ----------
    x_t
        Counts at survival probability `p_t`.
    lost
        x_0 − x_t, whole numbers.
    p_t, p_s
        Survival probabilities before and after the step, ``p_t < p_s``.
    attrition
        Share σ of the present molecules that dies in the step.
    generator
        Row-wise source of randomness.

    Returns
    -------
    Tensor
        Bin(x_t, 1 − σ) + Bin(x_0 − x_t, β).

    Raises
    ------
    TypeError
        If counts are integers in type, too.
    ValueError
        See :func:`birth_exposure`.
    """
    _check_floating(x_t)
    beta = birth_exposure(p_t, p_s, attrition) / (1.0 - p_t)
    alive = survivors(x_t, attrition, generator)
    return alive + binomial_quantile(generator.uniform(*x_t.shape[1:]), lost, torch.full_like(x_t, beta))
