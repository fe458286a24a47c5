"""Point estimates that a mean is not: the best answer after normalisation and logarithm."""

import math

import torch
from torch import Tensor

from countsdiff.core.count_law import CountLaw

_N_HALVINGS = 16


def log_mean(law: CountLaw, scale: Tensor, wanted: Tensor, seen: Tensor | float = 0.0) -> Tensor:
    """Values that are closest to the counts after scaling and log1p, and add up to what the counts are expected to.

    Without the second condition the answer would be expm1(E log1p(scale x)) / scale, whose sum is smaller, by half and
    more for shallow cells; normalising it would then raise every value. So u = log1p(scale y) minimises Σ (u − m)²,
    m = E log1p(scale x), under a fixed sum of y. By Lagrange u = m + w with w e^−w = a e^m: most values hardly move,
    and the largest, which take the sum up at least cost, have w up to 1. Where that is not enough, in shallow
    cells, the largest of all takes the other solution of that equation, w > 1.

    Parameters
    ----------
    law
        Predictive law of the counts, ``(n_obs, n_vars)``.
    scale
        Factor of each row that normalises it, positive, shape ``(n_obs, 1)``.
    wanted
        Entries to estimate; boolean.
    seen
        What is known of the counts: `law` is that of what comes on top of it. Where that is nothing they stay.

    Returns
    -------
    Tensor
        Estimates on the scale of the counts, zero where not wanted; shape ``(n_obs, n_vars)``.
    """
    stay = (seen * wanted) * (law.mean == 0.0)
    wanted = wanted & (law.mean > 0.0)
    total = ((law.mean + seen) * wanted).sum(1, keepdim=True) * scale
    known = 1.0 + scale * seen  # log(1 + scale (seen + x)) = log known + log(1 + scale x / known)
    m = torch.where(wanted, torch.log(known) + law.mean_log1p(scale / known), -torch.inf)  # adds nothing to any sum
    top, largest = m.max(1, keepdim=True)
    top = top.clamp(min=0.0)

    def lifted(log_a: Tensor, w_largest: Tensor) -> Tensor:
        return torch.expm1(m + _rise(log_a + m).scatter(1, largest, w_largest)).clamp(min=0.0)

    most = -1.0 - top  # of log a, where the largest value has w = 1
    short = lifted(most, torch.ones_like(top)).sum(1, keepdim=True) < total

    def solved(at: Tensor) -> Tensor:
        """Values by w of the largest in rows that fall short, by log a in the others."""
        w = torch.where(short, at, 1.0)
        log_a = torch.where(short, torch.log(w) - w - top, at)
        return lifted(log_a, torch.where(short, w, _rise(log_a + top)))

    low = torch.where(short, 1.0, most - 10.0)
    high = torch.where(short, torch.log1p(total) - top, most)
    for _ in range(_N_HALVINGS):
        middle = 0.5 * (low + high)
        too_little = solved(middle).sum(1, keepdim=True) < total
        low, high = torch.where(too_little, middle, low), torch.where(too_little, high, middle)
    y = solved(high) * wanted
    estimate = y * (total / y.sum(1, keepdim=True).clamp(min=1e-12)) / scale
    return torch.maximum(estimate, seen * wanted) + stay  # below which only rounding can take it


def _rise(log_b: Tensor) -> Tensor:
    """Smaller solution of w = b e^w for b ≤ 1/e, which is −W(−b) of Lambert's W."""
    b = torch.exp(log_b).clamp(max=1.0 / math.e)
    # Corless et al. (1996), eq. 4.22, around the branch point, then two steps of Newton
    q = torch.sqrt(2.0 * (1.0 - math.e * b).clamp(min=0.0))
    w = torch.maximum(1.0 - q + q * q / 3.0 - 11.0 / 72.0 * q**3, b)
    for _ in range(2):
        e = b * torch.exp(w)
        w = torch.minimum(w - (w - e) / (1.0 - e).clamp(min=1e-2), torch.ones_like(w))
    return torch.maximum(w, b)
