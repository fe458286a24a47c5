"""One fixed meaning for a denoiser: the intensity of births.

Whatever the network outputs, a denoiser returns λ(x_t, p, context) = E[x_0 − x_t | x_t, context] / (1 − p). It is
finite at both ends of time, so one trained network imputes (p = 0), samples (p from 0 to 1) and denoises (p = 1).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from countsdiff.core.calibration import Calibration
from countsdiff.core.factors import FactorModel
from countsdiff.core.heads import Entries, Head, HeadName, get_head
from countsdiff.core.interfaces import Context, Evidence, Intensity, shrunken_log_ratio
from countsdiff.core.masks import as_numbers


class Denoiser(nn.Module):
    """A backbone with everything it need not learn: scaling before it, a head and calibration after it.

    Parameters
    ----------
    backbone
        Network, see :class:`Backbone`.
    mean
        Mean counts per variable at size factor 1, positive, shape ``(n_vars,)``.
    dispersion
        Shape of the gamma law of each variable's rate over observations, positive, shape ``(n_vars,)``.
    head
        What makes an intensity of the backbone's outputs, or its name: ``"gamma"`` (:class:`GammaHead`), ``"rate"``
        (:class:`RateHead`), ``"x0"`` (:class:`X0Head`). A :class:`BoundedHead` has no name, since it needs a ceiling.
    group_sizes
        Numbers of variables that stand next to each other and share a depth, such as genes and proteins, each of which
        are counted in an experiment of their own. Default: one group of all.
    size_factors
        Whether observations differ in depth, so that a size factor is estimated for each of them. Images do not.
    factors
        Factor model of the log ratios, see :class:`Evidence`.
    estimate
        Module that makes intensities of counts and exposures, both ``(n_obs, n_vars)``, for a head to start from, such
        as :class:`~countsdiff.nn.LinearEstimate`.
    calibration
        Corrections once it is trained. Default: some that do nothing, until they are set.

    Raises
    ------
    ValueError
        If the head is unknown, or none that starts from an estimate.
    """

    group: Tensor
    mean: Tensor
    dispersion: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mean: Tensor,
        dispersion: Tensor,
        head: Head | HeadName = "gamma",
        group_sizes: Sequence[int] | None = None,
        *,
        size_factors: bool = True,
        factors: FactorModel | None = None,
        estimate: nn.Module | None = None,
        calibration: Calibration | None = None,
    ):
        super().__init__()
        self.head = head if isinstance(head, Head) else get_head(head, len(mean))
        if estimate is not None and not self.head.takes_estimate:
            raise ValueError(f"The head {head!r} does not start from an estimate; choose 'x0' or BoundedHead.")
        self.backbone = backbone
        self.size_factors = size_factors
        self.factors = factors
        self.estimate = estimate
        self.calibration = calibration or Calibration()
        self.group_sizes = list(group_sizes or [len(mean)])
        self.n_groups = len(self.group_sizes)
        group = torch.arange(self.n_groups).repeat_interleave(torch.as_tensor(self.group_sizes), output_size=len(mean))
        self.register_buffer("group", group, persistent=False)  # of every variable
        self.register_buffer("mean", mean)
        self.register_buffer("dispersion", dispersion)

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
        shift, shape_shift = self.backbone(evidence)
        # counts keep float32 under autocast: bfloat16 has no whole numbers beyond 256
        # 6 tanh(x / 6), within ±6; but torch.tanh takes a CPU several times as long
        shift, shape_shift = shift.float(), 12.0 * torch.sigmoid(shape_shift.float() / 3.0) - 6.0
        entries = Entries(
            x_t, p, counts, evidence.exposure, evidence.base, dispersion=self.dispersion, estimate=evidence.estimate
        )
        intensity: Intensity = self.head(self.calibration.shift(shift, p), shape_shift, entries, self.calibration)
        return replace(intensity, mean=self.calibration.drift_at(p) * intensity.mean)

    def base_rate(self, x_t: Tensor, p: Tensor, context: Context) -> Tensor:
        """Variables' means × size factors: what an untrained network predicts, shape ``(n_obs, n_vars)``."""
        return self._see(x_t, p, context)[1].base

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
        base = self.calibration.shrunken(self.calibration.level_at(p) * size * self.mean, p)
        covariates = (context.categories, context.continuous)
        factors = counts.new_zeros(len(counts), 0)
        if self.factors is not None:
            # what log ratios are shrunk by: the exposure where little is expected, and near 1 of many counts at any
            weight = exposure * (self.dispersion + size * self.mean) / (self.dispersion + size * expected)
            factors = self.factors(log_ratio, weight)
        estimate = None if self.estimate is None else self.estimate(counts, exposure)
        return counts, Evidence(log_ratio, exposure, summary, *covariates, base, factors, estimate)

    def _by_group(self, values: Tensor) -> Tensor:
        """Sums over the variables of each group, shape ``(n_obs, n_groups)``."""
        return torch.cat([part.sum(1, keepdim=True) for part in values.split(self.group_sizes, dim=1)], dim=1)


WEIGHTS_FORMAT = 2  # of the names of a denoiser's weights: 1 before heads and calibration were modules of their own


def with_current_names(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Weights of a denoiser saved before heads and calibration were modules of their own, as they are called now.

    Parameters
    ----------
    state
        Weights by name; those not of the denoiser are left alone.
    prefix
        What the names of the denoiser's begin with, such as ``"denoiser."``.
    """
    of_calibration = ("shrinkage", "reliability", "calibrated", "level", "slope", "sharpness", "tail", "drift")
    current = {f"{prefix}{name}": f"{prefix}calibration.{name}" for name in of_calibration}
    current[f"{prefix}shape_slope"] = f"{prefix}head.shape_slope"
    return {current.get(name, name): value for name, value in state.items()}
