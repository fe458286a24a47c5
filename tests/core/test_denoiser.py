import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from countsdiff.core import (
    BoundedHead,
    Calibration,
    Corrections,
    CountLaw,
    Denoiser,
    Evidence,
    FactorModel,
    Head,
    Intensity,
    bregman_loss,
    negative_binomial_loss,
    noise,
)
from countsdiff.core.calibration import N_DRIFT
from countsdiff.nn.gene_mlp import GeneMLP

MEAN = torch.tensor([0.5, 2.0, 10.0, 0.01])
DISPERSION = torch.tensor([0.3, 1.0, 5.0, 20.0])
ZERO_COUNTS = torch.zeros(1, 4)


class Constant(nn.Module):
    """A backbone that says the same of every entry, and remembers what it saw."""

    def __init__(self, shift: float = 0.0, shape_shift: float = 0.0):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))
        self.shape_shift = nn.Parameter(torch.tensor(shape_shift))

    def forward(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        self.evidence = evidence
        like = torch.zeros_like(evidence.log_ratio)
        return self.shift + like, self.shape_shift + like


def at(p: float, n_obs: int = 1) -> Tensor:
    return torch.full((n_obs, 1), p)


def size_factor(counts: Tensor, exposure: Tensor) -> Tensor:
    """(Σ counts) / (Σ exposure · mean), a tenth of a molecule of the average cell added to both."""
    return (counts.sum(1, keepdim=True) + 0.1) / ((exposure * MEAN).sum(1, keepdim=True) + 0.1)


@pytest.mark.parametrize("head", ["gamma", "rate", "x0"])
def test_an_untouched_network_predicts_mean_times_size_factor(head, make_context):
    # genes 0 and 1 are known, 2 and 3 are to be imputed: size (3 + 1 + .1) / (.5 + 2 + .1)
    known = torch.tensor([[True, True, False, False]])
    context = make_context(1, 4, counts=torch.tensor([[3.0, 1.0, 0.0, 0.0]]), known=known)
    intensity = Denoiser(Constant(), MEAN, DISPERSION, head)(ZERO_COUNTS, at(0.0), context)
    torch.testing.assert_close(intensity.mean[0, 2:], 4.1 / 2.6 * MEAN[2:])
    if head == "gamma":
        torch.testing.assert_close(intensity.shape[0, 2:], DISPERSION[2:])
    else:
        assert intensity.shape is None


def test_a_cell_of_which_nothing_is_seen_is_the_average_cell(make_context):
    intensity = Denoiser(Constant(), MEAN, DISPERSION)(ZERO_COUNTS, at(0.0), make_context(1, 4))
    torch.testing.assert_close(intensity.mean[0], MEAN)
    torch.testing.assert_close(intensity.shape[0], DISPERSION)


@pytest.mark.parametrize("p", [0.2, 0.9, 1.0])
def test_gamma_head_is_the_conjugate_update(p, make_context):
    # rate ~ Gamma(r, r / μ), count c seen at exposure e: posterior Gamma(r + c, r / μ + e)
    known = torch.tensor([[True, False, False, False]])
    context = make_context(1, 4, counts=torch.tensor([[2.0, 0.0, 0.0, 0.0]]), known=known)
    x_t = torch.tensor([[0.0, 3.0, 1.0, 0.0]])
    counts, exposure = context.counts + x_t, torch.tensor([[1.0, p, p, p]])
    intensity = Denoiser(Constant(), MEAN, DISPERSION)(x_t, at(p), context)
    mu = size_factor(counts, exposure) * MEAN
    torch.testing.assert_close(intensity.mean, (DISPERSION + counts) / (DISPERSION / mu + exposure))
    torch.testing.assert_close(intensity.shape, DISPERSION + counts)


def test_rate_and_x0_heads_have_closed_forms(make_context):
    x_t, p = torch.tensor([[0.0, 3.0, 1.0, 0.0]]), 0.4
    context = make_context(1, 4)
    base = size_factor(x_t, torch.full((1, 4), p)) * MEAN
    rate, x0 = (Denoiser(Constant(), MEAN, DISPERSION, head)(x_t, at(p), context) for head in ("rate", "x0"))
    torch.testing.assert_close(rate.mean, base)
    # x̂_0 = E[x_0 | x_t] of a rate ~ Gamma(r, r / base), also where x_t is more than its mean: there are births still
    expected = x_t + (1.0 - p) * (DISPERSION + x_t) / (DISPERSION / base + p)
    torch.testing.assert_close(x_t + (1.0 - p) * x0.mean, expected)
    assert x_t[0, 1] > base[0, 1]


@pytest.mark.parametrize("shift", [-30.0, -3.0, 0.0, 0.4, 30.0])
@pytest.mark.parametrize("shape_shift", [-50.0, 0.0, 0.7])
def test_backbone_moves_mean_and_shape(shift, shape_shift, make_context):
    denoiser = Denoiser(Constant(shift, shape_shift), MEAN, DISPERSION)
    intensity = denoiser(ZERO_COUNTS, at(0.0), make_context(1, 4))
    # e^x near 0, a cubic far from it; at most six units of log shape either way
    torch.testing.assert_close(intensity.mean[0], math.exp(3 * math.asinh(shift / 3)) * MEAN, rtol=1e-4, atol=0)
    torch.testing.assert_close(intensity.shape[0], math.exp(6 * math.tanh(shape_shift / 6)) * DISPERSION)


@pytest.mark.parametrize("head", ["gamma", "rate", "x0"])
def test_the_start_is_not_a_dead_end(head, make_context):
    # a multiplier that is e^x to first order has slope 1 at x = 0; softplus at softplus⁻¹(1) has slope 1 − 1/e
    backbone = Constant()
    Denoiser(backbone, MEAN, DISPERSION, head)(ZERO_COUNTS, at(0.0), make_context(1, 4)).mean.sum().backward()
    slope = 1.0 if head == "gamma" else 1.0 - math.exp(-1.0)
    torch.testing.assert_close(backbone.shift.grad, slope * MEAN.sum())


def test_backbone_sees_counts_against_their_expectation(make_context):
    known = torch.tensor([[True, False, False, False]])
    noised = torch.tensor([[False, True, True, False]])
    context = make_context(1, 4, counts=torch.tensor([[2.0, 0.0, 0.0, 0.0]]), known=known, noised=noised)
    backbone, x_t = Constant(), torch.tensor([[0.0, 3.0, 0.0, 0.0]])
    Denoiser(backbone, MEAN, DISPERSION)(x_t, at(0.25), context)
    seen = backbone.evidence
    exposure = torch.tensor([[1.0, 0.25, 0.25, 0.0]])
    counts = context.counts + x_t
    size = size_factor(counts, exposure)
    torch.testing.assert_close(seen.exposure, exposure)
    expected = torch.log((DISPERSION + counts) / (DISPERSION + exposure * size * MEAN))
    torch.testing.assert_close(seen.log_ratio, expected)
    assert seen.log_ratio[0, 3] == 0.0
    share_seen = (exposure * MEAN).sum() / MEAN.sum()
    summary = torch.stack([torch.tensor(0.25), size.log()[0, 0], share_seen])
    torch.testing.assert_close(seen.summary[0], summary)


def test_absent_entries_are_as_if_they_were_not_there(make_context):
    # gene 2 is absent: the others are predicted as by a denoiser that has never heard of it
    known = torch.tensor([[True, False, False, False]])
    noised = torch.tensor([[False, True, False, True]])
    context = make_context(1, 4, counts=torch.tensor([[2.0, 0.0, 0.0, 0.0]]), known=known, noised=noised)
    x_t, rest = torch.tensor([[0.0, 3.0, 0.0, 0.0]]), [0, 1, 3]
    whole = Denoiser(Constant(), MEAN, DISPERSION)(x_t, at(0.6), context)
    smaller = make_context(1, 3, counts=context.counts[:, rest], known=known[:, rest], noised=noised[:, rest])
    part = Denoiser(Constant(), MEAN[rest], DISPERSION[rest])(x_t[:, rest], at(0.6), smaller)
    torch.testing.assert_close(whole.mean[:, rest], part.mean)
    torch.testing.assert_close(whole.shape[:, rest], part.shape)
    # and of the absent gene itself nothing is said but the prior
    torch.testing.assert_close(whole.shape[:, 2], DISPERSION[2:3])


def test_an_entry_of_which_nothing_survived_is_as_good_as_absent(make_context):
    # training on incomplete data never shows as many noised entries as imputing it: the network must not see how many
    counts, known = torch.tensor([[2.0, 0.0, 0.0, 0.0]]), torch.tensor([[True, False, False, False]])
    noised = make_context(1, 4, counts=counts, known=known)
    absent = make_context(1, 4, counts=counts, known=known, noised=torch.zeros_like(known))
    backbone = Constant()
    denoiser = Denoiser(backbone, MEAN, DISPERSION)
    seen = []
    for context in (noised, absent):
        denoiser(ZERO_COUNTS, at(0.0), context)
        seen.append(backbone.evidence)
    for name in ("log_ratio", "exposure", "summary"):
        assert torch.equal(getattr(seen[0], name), getattr(seen[1], name))


@pytest.mark.parametrize("behind", [0.0, 7.0, 1e4])
def test_values_behind_absent_entries_do_not_enter(behind, make_context):
    noised = torch.tensor([[True, True, False, True]])
    context = make_context(1, 4, noised=noised)
    x_0 = torch.tensor([[1.0, 3.0, behind, 0.0]])
    x_t = noise(x_0, at(1.0), noised).x_t
    intensity = Denoiser(Constant(), MEAN, DISPERSION)(x_t, at(1.0), context)
    size = size_factor(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), noised.float())
    torch.testing.assert_close(intensity.mean[:, 2:3], size * MEAN[2])


@pytest.mark.parametrize("head", ["gamma", "rate"])
def test_noised_in_full_is_as_good_as_known(head, make_context):
    counts = torch.tensor([[2.0, 0.0, 14.0, 0.0], [0.0, 1.0, 3.0, 1.0]])
    everything = torch.ones(2, 4, dtype=torch.bool)
    denoiser = Denoiser(Constant(), MEAN, DISPERSION, head)
    known = denoiser(torch.zeros(2, 4), at(1.0, 2), make_context(2, 4, counts=counts, known=everything))
    noised = denoiser(counts, at(1.0, 2), make_context(2, 4, noised=everything))
    torch.testing.assert_close(known.mean, noised.mean, rtol=0, atol=0)
    torch.testing.assert_close(known.shape, noised.shape, rtol=0, atol=0)


class Remembering(Head):
    """Answers with twice the base rate, and remembers what it was given."""

    def forward(self, shift, shape_shift, entries, calibration):
        self.seen = shift, shape_shift, entries
        return Intensity(2.0 * entries.base)


def test_a_head_of_one_s_own_is_given_what_is_known_and_kept_steady(make_context):
    known = torch.tensor([[True, False, False, False]])
    noised = torch.tensor([[False, True, True, False]])
    context = make_context(1, 4, counts=torch.tensor([[2.0, 0.0, 0.0, 0.0]]), known=known, noised=noised)
    x_t, calibration = torch.tensor([[0.0, 3.0, 0.0, 0.0]]), Calibration()
    calibration.set(Corrections(slope=0.5, drift=[1.5] * N_DRIFT))
    denoiser = Denoiser(Constant(0.8, 0.3), MEAN, DISPERSION, Remembering(), calibration=calibration).eval()
    intensity = denoiser(x_t, at(0.25), context)
    shift, shape_shift, entries = denoiser.head.seen
    torch.testing.assert_close(shift, torch.full((1, 4), 0.8 * (0.5 + 0.5 * 0.25)))
    torch.testing.assert_close(shape_shift, torch.full((1, 4), 6.0 * math.tanh(0.3 / 6.0)))
    counts, exposure = torch.tensor([[2.0, 3.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.25, 0.25, 0.0]])
    torch.testing.assert_close(entries.counts, counts)
    torch.testing.assert_close(entries.exposure, exposure)
    torch.testing.assert_close(entries.base, size_factor(counts, exposure) * MEAN)
    alone = entries.base * (DISPERSION + counts) / (DISPERSION + exposure * entries.base)
    torch.testing.assert_close(entries.start(), alone)
    torch.testing.assert_close(intensity.mean, 1.5 * 2.0 * entries.base)
    assert intensity.shape is None


def test_unknown_head_is_an_error():
    with pytest.raises(ValueError, match="Unknown head 'poisson'"):
        Denoiser(Constant(), MEAN, DISPERSION, "poisson")


def test_births_follow_the_law_of_the_rate():
    mean, shape = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.5])
    assert torch.equal(Intensity(mean).births(0.3).mean, mean * 0.3)
    assert Intensity(mean).births(0.3).shape is None
    births = Intensity(mean, shape).births(0.3)
    assert isinstance(births, CountLaw)
    assert torch.equal(births.mean, mean * 0.3)
    assert torch.equal(births.shape, shape)


def test_without_covariates_everything_else_stays(make_context):
    context = make_context(2, 4, categories=torch.tensor([[0, 3], [1, 2]]), continuous=torch.ones(2, 1))
    nulled = context.without_covariates()
    assert bool((nulled.categories == -1).all())
    assert bool(nulled.continuous.isnan().all())
    assert replace(nulled, categories=context.categories, continuous=context.continuous) == context


def test_each_loss_trains_its_own_weights(make_context):
    # Bregman: mean and trunk. Negative binomial of the births, mean detached: shape alone.
    torch.manual_seed(0)
    backbone = GeneMLP(4, n_factors=2, width=8, dropout=0.0)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)  # past the zero start, where no gradient reaches the trunk
    factors = FactorModel(torch.arange(4), torch.randn(4, 2), torch.ones(4))
    denoiser = Denoiser(backbone, MEAN, DISPERSION, factors=factors)
    x_t, lost, p = torch.tensor([[0.0, 3.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 2.0, 0.0]]), 0.4

    def trained_by(loss: Tensor) -> set[str]:
        names, parameters = zip(*backbone.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return {name for name, g in zip(names, gradients, strict=True) if g is not None and bool((g != 0).any())}

    intensity = denoiser(x_t, at(p), make_context(1, 4))
    births = intensity.mean * (1.0 - p)
    of_shape = {"log_shape.weight", "log_shape.bias"}
    likelihood = negative_binomial_loss(lost, intensity.shape, births.detach()).sum()
    assert trained_by(bregman_loss(births, lost).sum()) == {name for name, _ in backbone.named_parameters()} - of_shape
    intensity = denoiser(x_t, at(p), make_context(1, 4))
    assert trained_by(likelihood) == of_shape


def bounded(shift: float = 0.0) -> Denoiser:
    return Denoiser(Constant(shift), MEAN, DISPERSION, BoundedHead(12.0), size_factors=False)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("shift", [0.0, 0.7, -2.0])
def test_bounded_head_multiplies_the_odds_of_conjugacy(p, shift, make_context):
    x_t = torch.tensor([[0.0, 3.0, 2.0, 0.0]]) * (p > 0.0)
    lost = bounded(shift)(x_t, at(p), make_context(1, 4)).mean * (1.0 - p)
    alone = MEAN * (DISPERSION + x_t) / (DISPERSION + p * MEAN) * (1.0 - p)
    share = alone / (12.0 - x_t)
    odds = share / (1.0 - share) * math.exp(3.0 * math.asinh(shift / 3.0))
    torch.testing.assert_close(lost, (12.0 - x_t) * odds / (1.0 + odds))


@pytest.mark.parametrize("shift", [-40.0, 0.0, 40.0])
def test_bounded_head_leaves_no_count_above_the_ceiling(shift, make_context):
    x_t = torch.arange(13.0).unsqueeze(1).expand(13, 4)
    for p in (0.0, 0.5, 0.97):
        mean = bounded(shift)(x_t, at(p, 13), make_context(13, 4)).mean
        assert bool((mean >= 0.0).all())
        assert bool((mean * (1.0 - p) <= (12.0 - x_t) * (1.0 + 1e-6)).all())
        assert torch.equal(mean[12], torch.zeros(4))


@pytest.mark.parametrize("head", ["gamma", "rate"])
def test_slope_belongs_to_imputation_and_not_to_training(head, make_context):
    def mean(shift, slope=1.0, p=0.0, training=False):
        denoiser = Denoiser(Constant(shift), MEAN, DISPERSION, head).train(training)
        denoiser.calibration.slope.fill_(slope)
        return denoiser(ZERO_COUNTS, at(p), make_context(1, 4)).mean

    torch.testing.assert_close(mean(0.8, slope=0.5), mean(0.4))
    torch.testing.assert_close(mean(0.8, slope=0.5, p=0.5), mean(0.6, p=0.5))
    torch.testing.assert_close(mean(0.8, slope=0.5, p=1.0), mean(0.8, p=1.0))
    torch.testing.assert_close(mean(0.8, slope=0.5, training=True), mean(0.8, training=True))
    torch.testing.assert_close(
        mean(0.8, slope=0.0),
        Denoiser(Constant(0.8), MEAN, DISPERSION, head).eval().base_rate(ZERO_COUNTS, at(0.0), make_context(1, 4)),
    )


@pytest.mark.parametrize("head", ["gamma", "rate", "x0"])
def test_few_counts_of_a_variable_leave_little_to_trust(head, make_context):
    shrinkage, reliability = torch.tensor([2.0, 1.0, 1.0, 0.5]), torch.tensor([1.0, 0.5, 0.0, 1.0])

    def mean(p, shift=0.8, training=False, calibrated=1.0, **trust):
        denoiser = Denoiser(Constant(shift), MEAN, DISPERSION, head, calibration=Calibration(**trust)).train(training)
        denoiser.calibration.calibrated.fill_(calibrated)
        return denoiser(ZERO_COUNTS, at(p), make_context(1, 4)).mean[0]

    trusting = {"shrinkage": shrinkage, "reliability": reliability}
    # an entry of which nothing is seen: means times the one, outputs times the other
    each = torch.stack([mean(0.0, shift=0.8 * float(r))[i] for i, r in enumerate(reliability)])
    torch.testing.assert_close(mean(0.0, **trusting), shrinkage * each)
    # neither where the entry was seen itself, nor in training
    torch.testing.assert_close(mean(1.0, **trusting), mean(1.0))
    torch.testing.assert_close(mean(0.0, training=True, **trusting), mean(0.0, training=True))
    torch.testing.assert_close(mean(0.0, calibrated=0.0, **trusting), mean(0.0))


def test_bounded_head_ends_where_its_entry_was_seen(make_context):
    # at p = 1 nothing is left to be born: the mean of a replicate, by conjugacy, times what the network says
    x_t = torch.tensor([[1.0, 2.0, 11.0, 0.0]])
    mean = bounded(0.5)(x_t, at(1.0), make_context(1, 4)).mean
    alone = MEAN * (DISPERSION + x_t) / (DISPERSION + MEAN)
    torch.testing.assert_close(mean, alone * math.exp(3.0 * math.asinh(0.5 / 3.0)))


def test_bounded_head_has_gradients_everywhere(make_context):
    denoiser = bounded()
    x_t = torch.tensor([[0.0, 12.0, 11.0, 5.0]])
    lost = torch.tensor([[5.0, 0.0, 1.0, 0.0]])
    loss = bregman_loss(denoiser(x_t, at(0.6), make_context(1, 4)).mean * 0.4, lost)
    loss.sum().backward()
    assert math.isfinite(float(denoiser.backbone.shift.grad))
    assert float(denoiser.backbone.shift.grad) != 0.0


def test_without_size_factors_depth_says_nothing(make_context):
    known = torch.tensor([[True, True, False, False]] * 2)
    context = make_context(2, 4, counts=torch.tensor([[1.0, 1.0, 0.0, 0.0], [9.0, 9.0, 0.0, 0.0]]), known=known)
    denoiser = bounded()
    mean = denoiser(torch.zeros(2, 4), at(0.0, 2), context).mean
    torch.testing.assert_close(mean[:, 2:], MEAN[2:].expand(2, 2))
    assert torch.equal(denoiser.backbone.evidence.summary[:, 1], torch.zeros(2))


def test_bounded_head_needs_a_ceiling():
    with pytest.raises(ValueError, match="needs the largest count there can be, a finite ceiling; got inf"):
        BoundedHead(math.inf)
