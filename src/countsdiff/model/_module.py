"""The torch module between scvi-tools' minibatches and the core."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass
from torch import Tensor

from countsdiff.core.calibration import UNCORRECTED, Calibration, Corrections
from countsdiff.core.denoiser import Denoiser
from countsdiff.core.ema import ExponentialMovingAverage
from countsdiff.core.heads import HeadName
from countsdiff.core.interfaces import Context, Intensity
from countsdiff.core.loss import TimeSampler, bregman_loss, negative_binomial_loss
from countsdiff.core.masks import as_numbers, only
from countsdiff.core.process import noise
from countsdiff.core.schedule import Spacing, get_schedule
from countsdiff.model._balance import precision, predicted_shape, variable_weights
from countsdiff.model._data import KEYS
from countsdiff.model._hide import hide
from countsdiff.model._noised import NoisedCells
from countsdiff.model._statistics import GeneStatistics
from countsdiff.nn import BackboneName, adopted_state, get_backbone

FARTHEST = 5.0  # standard deviations of a continuous covariate from its mean
_SHARE_UNCONDITIONAL = 0.2  # rows trained with every covariate unknown (CountsDiff's p_uncond)
_SHARE_VALIDATED = 0.2  # entries hidden at a time in validation, where training hides any share
_LEAST_VALIDATED = 0.05  # and where it hides fewer, or validation would take a hundred passes


class CountsDiffModule(BaseModuleClass):
    """Denoiser, its moving average, and the loss with masked-entry conditioning.

    Parameters
    ----------
    n_input
        Number of genes.
    n_batch, n_labels, n_cats_per_cov
        Numbers of categories; a covariate with a single category says nothing and is left out.
    n_continuous_cov
        Number of continuous covariates.
    statistics
        What is known of the genes before training; None where it is about to be loaded.
    continuous_location, continuous_scale
        Mean and standard deviation of the continuous covariates, shape ``(n_continuous_cov,)``; infinite for those that
        are the same in all cells.
    head, schedule, weight, spacing
        See :class:`~countsdiff.core.denoiser.Denoiser`, :func:`~countsdiff.core.schedule.get_schedule`,
        :class:`~countsdiff.core.loss.TimeSampler`.
    backbone, width, depth, dropout
        See :func:`~countsdiff.nn.get_backbone`.
    group_sizes
        Numbers of variables of each modality, see :class:`~countsdiff.core.denoiser.Denoiser`.
    ema_decay
        Decay of the averaged weights, which are those that predict.
    has_size_factor
        Whether size factors come with the data; their logarithm is one more continuous covariate.
    """

    continuous_location: Tensor
    continuous_scale: Tensor
    informative: Tensor

    def __init__(
        self,
        n_input: int,
        n_batch: int = 1,
        n_labels: int = 1,
        n_continuous_cov: int = 0,
        n_cats_per_cov: Sequence[int] | None = None,
        *,
        statistics: GeneStatistics | None = None,
        continuous_location: Tensor | None = None,
        continuous_scale: Tensor | None = None,
        head: HeadName = "gamma",
        schedule: str = "cosine",
        weight: str = "elbo",
        spacing: Spacing = "p",
        backbone: BackboneName = "mlp",
        width: int | None = None,
        depth: int | None = None,
        dropout: float | None = None,
        group_sizes: Sequence[int] | None = None,
        ema_decay: float = 0.995,
        has_size_factor: bool = False,
    ):
        super().__init__()
        n_per_covariate = [n_batch, n_labels, *(n_cats_per_cov or ())]
        informative = [i for i, n in enumerate(n_per_covariate) if n > 1]
        # on the device: a list of the host would have it wait, at every step
        self.register_buffer("informative", torch.tensor(informative, dtype=torch.int64), persistent=False)
        self._has_categories = n_cats_per_cov is not None and len(n_cats_per_cov) > 0
        if statistics is None:
            statistics = GeneStatistics.unknown(n_input)
        network = get_backbone(
            backbone,
            n_input,
            [n_per_covariate[i] for i in informative],
            n_continuous_cov + has_size_factor,
            n_groups=len(group_sizes or [n_input]),
            n_factors=statistics.factors.n_factors,
            width=width,
            depth=depth,
            dropout=dropout,
        )
        self.denoiser = Denoiser(
            network,
            statistics.mean,
            statistics.dispersion,
            head,
            group_sizes,
            factors=statistics.factors,
            calibration=Calibration(statistics.shrinkage, statistics.reliability),
        )
        self.averaged = ExponentialMovingAverage(self.denoiser, ema_decay)
        self.times = TimeSampler(get_schedule(schedule), weight, spacing)
        self.register_buffer(
            "continuous_location",
            torch.zeros(n_continuous_cov) if continuous_location is None else continuous_location,
        )
        self.register_buffer(
            "continuous_scale", torch.ones(n_continuous_cov) if continuous_scale is None else continuous_scale
        )

    def adopt(self, reference: "CountsDiffModule") -> None:
        """Take over the weights of a reference, whose covariates may have fewer categories."""
        known = reference.informative.tolist()
        origins = [known.index(i) if i in known else None for i in self.informative.tolist()]
        state = {name: value for name, value in reference.state_dict().items() if ".backbone." not in name}
        for own, theirs, prefix in (
            (self.denoiser, reference.denoiser, "denoiser.backbone."),
            (self.averaged.module, reference.averaged.module, "averaged.module.backbone."),
        ):
            state |= {prefix + k: v for k, v in adopted_state(own.backbone, theirs.backbone, origins).items()}
        self.load_state_dict(state)

    def covariates(self, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Codes of the informative categorical covariates, and standardised continuous ones.

        What has told no cells apart is unknown: a network would make anything of another value. It would of one far
        from all that it was trained on, too, so that these are taken for the farthest that is not.
        """
        n_obs, device = len(tensors[REGISTRY_KEYS.BATCH_KEY]), self.continuous_location.device
        codes = [tensors[REGISTRY_KEYS.BATCH_KEY], tensors[REGISTRY_KEYS.LABELS_KEY]]
        if self._has_categories:
            codes.append(tensors[REGISTRY_KEYS.CAT_COVS_KEY])
        categories = torch.cat([c.to(device, torch.int64) for c in codes], dim=1).index_select(1, self.informative)
        continuous = torch.empty(n_obs, 0, device=device)
        if REGISTRY_KEYS.CONT_COVS_KEY in tensors:
            continuous = tensors[REGISTRY_KEYS.CONT_COVS_KEY].to(device, torch.float32)
            continuous = (continuous - self.continuous_location) / self.continuous_scale
            continuous = continuous.clamp(-FARTHEST, FARTHEST)
            continuous = torch.where(self.continuous_scale.isinf(), torch.nan, continuous)
        if REGISTRY_KEYS.SIZE_FACTOR_KEY in tensors:
            size_factor = tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].to(device, torch.float32)
            continuous = torch.cat([continuous, size_factor.log()], dim=1)
        return categories, continuous

    def noised(
        self, tensors: dict[str, Tensor], generator: torch.Generator, share_hidden: float | None = None
    ) -> NoisedCells:
        """Draw what to hide and how far to thin it (three states of an entry: docs/theory).

        Hidden entries, `share_hidden` of the observed ones (None: a share drawn per cell uniformly from [0, 1]), are
        noised and carry loss; the other observed ones are known; missing ones are absent: neither seen nor scored.
        """
        counts, observed = self.observed(tensors)
        hidden = hide(observed, self.denoiser.group_sizes, generator, share_hidden)
        known, noised = observed & ~hidden, observed & hidden
        categories, continuous = self.covariates(tensors)
        unconditional = torch.rand(len(counts), 1, generator=generator, device=counts.device) < _SHARE_UNCONDITIONAL
        context = Context(
            counts=counts * as_numbers(known),
            known=known,
            noised=noised,
            categories=torch.where(unconditional, -1, categories),
            continuous=torch.where(unconditional, torch.nan, continuous),
        )
        levels = self.times(len(counts), generator, counts.device)
        return NoisedCells(context, levels, noise(counts, levels.p, noised, generator))

    def loss(self, cells: NoisedCells, n_cells: float) -> Tensor:
        """Score the denoiser: the sum over cells, divided by `n_cells`; a mean where they are all of a minibatch."""
        context, levels, lost = cells.context, cells.levels, cells.counts.lost
        intensity = self.denoiser(cells.counts.x_t, levels.p, context)
        to_go = 1.0 - levels.p
        weights = levels.weight * as_numbers(context.noised) * variable_weights(self.denoiser)
        # a cell counts for about the same whatever share of it was hidden, so that the almost complete cells matter too
        per_cell = weights.sum(1).clamp(min=20.0)
        bregman = bregman_loss(intensity.mean * to_go, lost) * precision(self.denoiser, intensity, to_go)
        total: Tensor = ((weights * bregman).sum(1) / per_cell).sum() / n_cells
        if intensity.shape is not None:
            likelihood = negative_binomial_loss(lost, intensity.shape, intensity.mean.detach() * to_go)
            total = total + ((weights * likelihood).sum(1) / per_cell).sum() / n_cells
        return total

    def imputation_loss(
        self, tensors: dict[str, Tensor], generator: torch.Generator, share_hidden: float | None = None
    ) -> Tensor:
        """Loss of the averaged weights at imputing every observed entry once, see :meth:`impute_folds`.

        Poisson's, as in training; where there are several modalities, that of the predicted negative binomials, since
        the strongest proteins would make up all of the other.

        The training loss is no guide to when to stop: it averages over cells of which little or nothing is known, where
        learning ends long before it does for the almost complete cells that users have.

        Returns
        -------
        Tensor
            Mean loss per cell, shape ``(n_obs,)``.
        """
        counts, observed = self.observed(tensors)
        total = torch.zeros(len(counts), device=counts.device)
        for intensity, hidden, _ in self.impute_folds(tensors, generator, share_hidden):
            if self.denoiser.n_groups == 1:
                losses = bregman_loss(intensity.mean, counts)
            else:
                losses = variable_weights(self.denoiser) * negative_binomial_loss(
                    counts, predicted_shape(self.denoiser, intensity), intensity.mean
                )
            total = total + (losses * as_numbers(hidden)).sum(1)
        return total / observed.sum(1).clamp(min=1)

    def impute_folds(
        self, tensors: dict[str, Tensor], generator: torch.Generator, share_hidden: float | None = None
    ) -> Iterator[tuple[Intensity, Tensor, Context]]:
        """Impute every observed entry once, as many at a time as training hides (a fifth where it hides any share).

        Never less than a twentieth.

        Yields
        ------
        tuple
            Predictions for all entries, and the boolean matrix of those they are for, which were hidden, both
            ``(n_obs, n_vars)``; the context they were predicted from.
        """
        counts, observed = self.observed(tensors)
        categories, continuous = self.covariates(tensors)
        share = max(share_hidden or _SHARE_VALIDATED, _LEAST_VALIDATED)
        exact = Fraction(share).limit_denominator(100)
        n_folds, at_a_time = exact.denominator, exact.numerator
        fold = torch.randint(n_folds, counts.shape, generator=generator, device=counts.device)
        empty = torch.zeros(len(counts), 1, device=counts.device)
        for first in range(0, n_folds, at_a_time):
            hidden = observed & ((fold - first) % n_folds < at_a_time)
            known = observed & ~hidden
            context = Context(counts * as_numbers(known), known, hidden, categories, continuous)
            # the last ones hide, to be as many, some that were predicted before
            yield self.averaged.module(torch.zeros_like(counts), empty, context), hidden & (fold >= first), context

    def set_calibration(self, corrections: Corrections = UNCORRECTED, *, calibrated: bool = True) -> None:
        """Store what :func:`~countsdiff.model._calibration.calibrate` finds, see :meth:`Calibration.set`."""
        for denoiser in (self.denoiser, self.averaged.module):
            denoiser.calibration.set(corrections, calibrated=calibrated)

    def set_means(self, mean: Tensor) -> None:
        """Mean counts at size factor 1 of other data, shape ``(n_input,)``."""
        for denoiser in (self.denoiser, self.averaged.module):
            denoiser.mean.copy_(mean)

    def raise_level(self, factor: float) -> None:
        """Multiply all predictions."""
        for denoiser in (self.denoiser, self.averaged.module):
            denoiser.calibration.level.mul_(factor)

    def observed(self, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Counts, 0 where missing, and which are not missing; both ``(n_obs, n_vars)``."""
        counts = tensors[REGISTRY_KEYS.X_KEY]
        observed = ~counts.isnan()
        if KEYS.MISSING in tensors:
            observed &= tensors[KEYS.MISSING] == 0
        if KEYS.PRESENT in tensors:
            observed &= tensors[KEYS.PRESENT][:, self.denoiser.group] > 0
        # columns first (CSC data) would be summed in another order, and round differently
        observed = observed.contiguous()
        return only(counts.contiguous(), observed), observed
