"""Point estimates that a mean is not: the best answer after normalisation and logarithm."""

import math

import torch
from torch import Tensor

from countsdiff.core.counting import CountLaw

_N_HALVINGS = 12
_E = math.e


def log_mean(law: CountLaw, scale: Tensor, wanted: Tensor) -> Tensor:
    """Values that are closest to the counts after scaling and log1p, and add up to what the counts are expected to.

    Without the second condition the answer would be expm1(E log1p(scale x)) / scale, whose sum is smaller, by half and
    more for shallow cells; normalising it would then raise every value. So u = log1p(scale y) minimises Σ (u − E
    log1p(scale x))² under a fixed sum of y: u = m + w with w = a e^u, small for most values and large for the largest,
    which take the sum up at least cost. None takes more than w = 1, which keeps all values in their order; what is
    missing then is made up in proportion.

    Parameters
    ----------
    law
        Predictive law of the counts, ``(n_obs, n_vars)``.
    scale
        Factor of each row that normalises it, positive, shape ``(n_obs, 1)``.
    wanted
        Entries to estimate; boolean.

    Returns
    -------
    Tensor
        Estimates on the scale of the counts, zero where not wanted; shape ``(n_obs, n_vars)``.
    """
    total = (law.mean * wanted).sum(1, keepdim=True) * scale
    m = torch.where(wanted, law.mean_log1p(scale), -torch.inf)  # adds nothing to any sum
    high = -1.0 - m.amax(1, keepdim=True).clamp(min=0.0)  # of log a, where the largest value has w = 1
    low = high - 10.0  # where it has w < 1e-4
    for _ in range(_N_HALVINGS):
        middle = 0.5 * (low + high)
        short = torch.expm1(m + _rise(middle + m)).clamp(min=0.0).sum(1, keepdim=True) < total
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    y = torch.where(wanted, torch.expm1(m + _rise(high + m)), 0.0)
    return y * (total / y.sum(1, keepdim=True).clamp(min=1e-12)) / scale


def _rise(log_b: Tensor) -> Tensor:
    """Smaller solution of w = b e^w for b ≤ 1/e, which is −W(−b) of Lambert's W."""
    b = torch.exp(log_b).clamp(max=1.0 / _E)
    # Corless et al. (1996), eq. 4.22, around the branch point, then two steps of Newton
    q = torch.sqrt(2.0 * (1.0 - _E * b).clamp(min=0.0))
    w = torch.maximum(1.0 - q + q * q / 3.0 - 11.0 / 72.0 * q**3, b)
    for _ in range(2):
        e = b * torch.exp(w)
        w = torch.minimum(w - (w - e) / (1.0 - e).clamp(min=1e-2), torch.ones_like(w))
    return torch.maximum(w, b)
