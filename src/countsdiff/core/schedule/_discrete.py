"""Survival schedules that their papers give at a number of fixed times: Blackout Diffusion and JUMP."""

import torch
from torch import Tensor
from torch.nn import functional as F

from countsdiff.core.schedule._base import SurvivalSchedule
from countsdiff.core.schedule._continuous import LogitLinearSchedule


class BlackoutSchedule(LogitLinearSchedule):
    """Blackout Diffusion as published: a process looked at `n_times` times only (Santos et al. 2023, arXiv 2305.11089).

    Observation k sits at t = k / n_times and any time in between belongs to the next one, so that times drawn
    uniformly draw the observations uniformly. With τ = −log p the slope is −n_times · p Δτ: the ``"paper"`` weight is
    Blackout's loss weight p Δτ, times a constant. Its other choices are the ``"rate"`` head, times drawn and stepped
    through uniformly in t, and ``births="round"``.

    Parameters
    ----------
    horizon
        End time T of the pure-death process.
    n_times
        Number of observations.
    """

    def __init__(self, horizon: float = 15.0, n_times: int = 1000):
        super().__init__(horizon)
        if n_times < 2:
            raise ValueError(f"Blackout needs at least two observation times; got {n_times}.")
        self.n_times = n_times

    def survival(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        return super().survival(self._place(self._observation(t)))

    def slope(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        k = self._observation(t)
        p, tau = super().survival(self._place(k)), self._tau(k)
        before = torch.where(k == 1.0, torch.zeros_like(tau), self._tau(k - 1.0))  # at first nothing has died
        return -self.n_times * p * (tau - before)

    def inverse(self, p: Tensor) -> Tensor:
        """Time of the first observation at which no more than `p` survive."""
        k = 1.0 + (self.n_times - 1) * super().inverse(p)
        return self._observation(k / self.n_times) / self.n_times

    def _observation(self, t: Tensor) -> Tensor:
        # a thousandth of a step absorbs the rounding of t = k / n_times, which belongs to k
        return torch.ceil(t * self.n_times - 1e-3).clamp(1.0, self.n_times)

    def _place(self, k: Tensor) -> Tensor:
        """Time in the continuous schedule of observation k: they span it from end to end."""
        return (k - 1.0) / (self.n_times - 1)

    def _tau(self, k: Tensor) -> Tensor:
        # −log sigmoid(x) = log(1 + e^−x), of which p near 1 keeps all digits
        return F.softplus((2.0 * self._place(k) - 1.0) * self.half_width)


class JumpSchedule(SurvivalSchedule):
    """Learning to Jump: p = sqrt(∏ (1 − β)) with β linear in time (Chen & Zhou 2023, arXiv 2305.18375).

    The smallest and the largest β follow from the first and last log signal-to-noise ratio log(p² / (1 − p²)). Between
    the grid's times log p is linear.

    Parameters
    ----------
    log_snr
        First and last log signal-to-noise ratio.
    n_times
        Number of grid times.

    Raises
    ------
    ValueError
        If the ratios do not decrease, or so little that β would have to be negative.
    """

    def __init__(self, log_snr: tuple[float, float] = (10.0, -12.0), n_times: int = 1000):
        # on the CPU also where a network is outlined without memory, on the device "meta"
        first, last = (torch.tensor(v, dtype=torch.float64, device="cpu") for v in log_snr)
        smallest = torch.sigmoid(-first)

        def log_products(largest: Tensor) -> Tensor:
            ramp = torch.linspace(0.0, 1.0, n_times, dtype=torch.float64, device="cpu")
            return torch.log1p(-(smallest + ramp * (largest - smallest))).cumsum(0)

        target = F.logsigmoid(last)
        low, high = smallest, torch.tensor(1.0 - 1e-12, dtype=torch.float64, device="cpu")
        if not log_products(high)[-1] < target < log_products(low)[-1]:
            raise ValueError(f"No linear β leads from log-SNR {log_snr[0]:g} to {log_snr[1]:g} in {n_times} times.")
        for _ in range(60):  # 60 halvings exhaust float64
            middle = 0.5 * (low + high)
            if log_products(middle)[-1] > target:
                low = middle
            else:
                high = middle
        self.n_times = n_times
        self._tau = F.pad(-0.5 * log_products(high), (1, 0))  # −log p at t = 0, 1 / n_times, …, 1
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def survival(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        tau, rate, since = self._segment(t)
        return torch.exp(-(tau + rate * since))

    def slope(self, t: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        _, rate, _ = self._segment(t)
        return -rate * self.survival(t)

    def inverse(self, p: Tensor) -> Tensor:
        """See :class:`SurvivalSchedule`."""
        tau = self._tau_like(p)
        wanted = -torch.log(p)
        k = torch.searchsorted(tau, wanted.contiguous()).clamp(1, self.n_times)
        share = (wanted - tau[k - 1]) / (tau[k] - tau[k - 1])
        return ((k - 1 + share) / self.n_times).clamp(0.0, 1.0)

    def _tau_like(self, like: Tensor) -> Tensor:
        """τ on the device of a tensor, copied there once: every copy has the host wait for a GPU."""
        key = (like.device, like.dtype)
        if key not in self._copies:
            self._copies[key] = self._tau.to(like)
        return self._copies[key]

    def _segment(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """τ at the start of the segment t lies in, its slope there, and the time since."""
        tau = self._tau_like(t)
        k = (t * self.n_times).floor().clamp(0, self.n_times - 1)
        start, end = tau[k.long()], tau[k.long() + 1]
        return start, (end - start) * self.n_times, t - k / self.n_times
