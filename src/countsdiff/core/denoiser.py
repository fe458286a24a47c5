"""One fixed meaning for a denoiser: the intensity of births.

Whatever the network outputs, a denoiser returns λ(x_t, p, context) = E[x_0 − x_t | x_t, context] / (1 − p). It is
finite at both ends of time, so one trained network imputes (p = 0), samples (p from 0 to 1) and denoises (p = 1).
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from countsdiff.core.factors import FactorModel
from countsdiff.core.interfaces import Context, Evidence, Intensity, shrunken_log_ratio
from countsdiff.core.masks import as_numbers

HeadName = Literal["gamma", "rate", "x0", "bounded"]
N_DRIFT = 20  # survival probabilities at which the sum of intensities is held steady, see countsdiff.core.calibration


class Denoiser(nn.Module):
    """A backbone with everything it need not learn: scaling in, conjugacy out.

    Parameters
    ----------
    backbone
        Network, see :class:`Backbone`.
    mean
        Mean counts per variable at size factor 1, positive, shape ``(n_vars,)``.
    dispersion
        Shape of the gamma law of each variable's rate over observations, positive, shape ``(n_vars,)``.
    head
        ``"gamma"``: mean μ and shape r from the context; conjugacy supplies λ = μ (r + c) / (r + e μ) for an entry
        seen with count c at exposure e, and births are negative binomial. ``"rate"``: λ itself by a softplus (the
        paper's). ``"x0"``: E[x_0] = x_t + (1 − p) λ, where a softplus scales the λ that conjugacy gives for the entry
        alone. ``"bounded"``: of the room left below the ceiling, the share to be born; its log odds start from the same
        λ.
    group_sizes
        Numbers of variables that stand next to each other and share a depth, such as genes and proteins, each of which
        are counted in an experiment of their own. Default: one group of all.
    ceiling
        Largest count there can be, such as 255 for pixels; the ``"bounded"`` head needs one.
    size_factors
        Whether observations differ in depth, so that a size factor is estimated for each of them. Images do not.
    factors
        Factor model of the log ratios, see :class:`Evidence`.
    shrinkage, reliability
        What few counts of a variable leave to trust, each of shape ``(n_vars,)``; default: all. Factors of its mean
        where it is imputed (an entry that was seen, p = 1, has counts of its own to go by), and of the backbone's first
        output, see :mod:`countsdiff.core.shrinkage`. They hold once the denoiser is calibrated: training would undo
        them.
    estimate
        Module that makes intensities of counts and exposures, both ``(n_obs, n_vars)``, from which the heads x0 and
        bounded start instead, such as :class:`~countsdiff.nn.LinearEstimate`.

    Raises
    ------
    ValueError
        If the head is unknown, bounded without a finite ceiling, or none that starts from an estimate.
    """

    group: Tensor
    mean: Tensor
    dispersion: Tensor
    shrinkage: Tensor | None
    reliability: Tensor | None
    calibrated: Tensor
    level: Tensor
    slope: Tensor
    sharpness: Tensor
    tail: Tensor
    drift: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mean: Tensor,
        dispersion: Tensor,
        head: HeadName = "gamma",
        group_sizes: Sequence[int] | None = None,
        *,
        ceiling: float = math.inf,
        size_factors: bool = True,
        factors: FactorModel | None = None,
        shrinkage: Tensor | None = None,
        reliability: Tensor | None = None,
        estimate: nn.Module | None = None,
    ):
        super().__init__()
        if head not in get_args(HeadName):
            raise ValueError(f"Unknown head {head!r}; choose 'gamma', 'rate', 'x0' or 'bounded'.")
        if head == "bounded" and not math.isfinite(ceiling):
            raise ValueError("The head 'bounded' needs the largest count there can be; give a finite ceiling.")
        if estimate is not None and head not in ("bounded", "x0"):
            raise ValueError(f"The head {head!r} does not start from an estimate; choose 'bounded' or 'x0'.")
        self.backbone = backbone
        self.head = head
        self.ceiling = ceiling
        self.size_factors = size_factors
        self.factors = factors
        self.estimate = estimate
        self.group_sizes = list(group_sizes or [len(mean)])
        self.n_groups = len(self.group_sizes)
        group = torch.arange(self.n_groups).repeat_interleave(torch.as_tensor(self.group_sizes), output_size=len(mean))
        self.register_buffer("group", group, persistent=False)  # of every variable
        self.register_buffer("mean", mean)
        self.register_buffer("dispersion", dispersion)
        self.register_buffer("shrinkage", shrinkage)
        self.register_buffer("reliability", reliability)
        # set after training, see countsdiff.core.calibration; whether they were (0 or 1) is saved where it matters
        self.register_buffer("calibrated", torch.tensor(0.0), persistent=shrinkage is not None)
        self.register_buffer("level", torch.tensor(1.0))
        self.register_buffer("slope", torch.tensor(1.0))
        self.register_buffer("sharpness", torch.tensor(1.0))
        self.register_buffer("tail", torch.tensor(torch.inf))
        self.register_buffer("drift", torch.ones(N_DRIFT + 1))
        if head == "gamma":
            # a variable's dispersion over all observations is far too wide for those that plainly express it
            self.shape_slope = nn.Parameter(torch.zeros_like(mean))

    def forward(self, x_t: Tensor, p: Tensor, context: Context) -> Intensity:
        """Intensity of births on every entry.

        On noised entries it is E[x_0 − x_t | x_t, context] / (1 − p); at p = 1, where nothing is left to be born, it
        is the mean of a fresh replicate given everything seen, and on absent entries their mean.

        Parameters
        ----------
        x_t
            Counts on noised entries, zero elsewhere; shape ``(n_obs, n_vars)``.
        p
            Survival probability, shape ``(n_obs, 1)``.
        context
            What else is known.
        """
        counts, evidence = self._see(x_t, p, context)
        base = evidence.base
        shift, shape_shift = self.backbone(evidence)
        # counts keep float32 under autocast: bfloat16 has no whole numbers beyond 256
        # 6 tanh(x / 6), within ±6; but torch.tanh takes a CPU several times as long
        shift, shape_shift = shift.float(), 12.0 * torch.sigmoid(shape_shift.float() / 3.0) - 6.0
        if not self.training:  # calibration comes after training
            slope = self.slope
            if self.reliability is not None:
                slope = slope * self.reliability**self.calibrated
            shift = shift * (slope + (1.0 - slope) * p)
        if self.head == "gamma":
            mu = base * multiplier(shift)
            fixed_mu = mu.detach()
            log_shape = shape_shift + self.shape_slope * torch.log1p(fixed_mu)
            if not self.training:
                # fitted to imputation, p = 0, as the level is; towards p = 1 an entry's own count sets the width
                bend = self.tail.sign() * torch.log1p(fixed_mu / self.tail.abs())
                log_shape = log_shape + (1.0 - p) * (self.sharpness.log() + bend)
            shape = self.dispersion * torch.exp(log_shape)
            # the mean's loss fits dispersion badly (docs/theory): only the likelihood of the births moves the shape
            fixed = shape.detach()
            mean = mu * (fixed + counts) / (fixed + evidence.exposure * mu)
            return Intensity(mean=self._steady(p) * mean, shape=shape + counts)
        if self.head == "rate":
            return Intensity(mean=self._steady(p) * base * F.softplus(shift + _SOFTPLUS_ONE))
        start = evidence.estimate
        if start is None:  # by conjugacy, from the entry alone
            start = base * (self.dispersion + counts) / (self.dispersion + evidence.exposure * base)
        if self.head == "bounded":
            return Intensity(mean=self._steady(p) * _within(start, multiplier(shift), self.ceiling - x_t, 1.0 - p))
        # not a softplus of x̂_0 itself: it would be clipped at x_t, and have no gradient where it is below
        return Intensity(mean=self._steady(p) * start * F.softplus(shift + _SOFTPLUS_ONE))

    def base_rate(self, x_t: Tensor, p: Tensor, context: Context) -> Tensor:
        """Variables' means × size factors: what an untrained network predicts, shape ``(n_obs, n_vars)``."""
        return self._see(x_t, p, context)[1].base

    def _steady(self, p: Tensor) -> Tensor:
        """Factor of all intensities at `p`, interpolated."""
        at = p * N_DRIFT
        before = at.floor().clamp(max=N_DRIFT - 1)
        start, end = self.drift[before.long()], self.drift[before.long() + 1]
        return start + (at - before) * (end - start)

    def _see(self, x_t: Tensor, p: Tensor, context: Context) -> tuple[Tensor, Evidence]:
        """Counts seen, and evidence, whose base rate is the variable's mean × size factor."""
        counts = context.counts + x_t
        exposure = as_numbers(context.known) + as_numbers(context.noised) * p
        expected = exposure * self.mean
        seen = self._by_group(expected)
        group_size = torch.ones_like(seen)
        if self.size_factors:
            # a tenth of a molecule stands for the average cell, so that a cell of which nothing is seen has size 1
            group_size = (self._by_group(counts) + 0.1) / (seen + 0.1)
        size = group_size if self.n_groups == 1 else group_size[:, self.group]
        log_ratio = shrunken_log_ratio(counts, size * expected, self.dispersion)
        summary = torch.cat([p, group_size.log(), seen / self._by_group(self.mean.unsqueeze(0))], dim=1)
        # the level was fitted to imputation, p = 0; towards p = 1 the entries' own counts take its place
        base = self.level ** (1.0 - p) * size * self.mean
        if self.shrinkage is not None and not self.training:
            base = base * torch.where(p < 1.0, self.shrinkage**self.calibrated, 1.0)
        covariates = (context.categories, context.continuous)
        factors = counts.new_zeros(len(counts), 0) if self.factors is None else self.factors(log_ratio, exposure)
        estimate = None if self.estimate is None else self.estimate(counts, exposure)
        return counts, Evidence(log_ratio, exposure, summary, *covariates, base, factors, estimate)

    def _by_group(self, values: Tensor) -> Tensor:
        """Sums over the variables of each group, shape ``(n_obs, n_groups)``."""
        return torch.cat([part.sum(1, keepdim=True) for part in values.split(self.group_sizes, dim=1)], dim=1)


def multiplier(shift: Tensor) -> Tensor:
    """Positive multiple of the base rate that a backbone's output x stands for.

    It is e^{3 asinh(x/3)}: e^x around 0, and (2|x|/3)^±3 far from it.

    Most entries are zeros, and with e^x a network is overconfident about them: rates that it predicted as .0065 were
    .0165 in truth. For large x, an exponential turns slight overconfidence into exploding rates in shallow cells.
    """
    y = shift / 3.0
    exp_asinh = y + torch.sqrt(y * y + 1.0)  # torch.asinh itself is many times slower on a CPU
    return exp_asinh * exp_asinh * exp_asinh


def as_shift(log_multiple: Tensor) -> Tensor:
    """Output of a backbone that multiplies the base rate, or its odds below a ceiling, by e to the power of this."""
    return 3.0 * torch.sinh(log_multiple / 3.0)


def _within(rate: Tensor, factor: Tensor, room: Tensor, to_go: Tensor) -> Tensor:
    """Multiply the odds of a lost count, as `rate` has them, by `factor`: rates that bear no more than `room` in all.

    Not room · sigmoid(log odds) / to_go: nothing is divided by `to_go`, which ends at 0, where this is rate · factor.
    """
    whole = room.clamp(min=1.0)
    rate = torch.minimum(rate, 0.99 * whole / to_go)
    share = rate * to_go / whole
    return torch.where(room > 0.0, rate * factor / (1.0 - share + share * factor), 0.0)


_SOFTPLUS_ONE = 0.5413248546129181  # softplus(0.541…) = 1: an untouched network predicts the base rate
