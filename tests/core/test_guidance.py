import pytest
import torch

from countsdiff.core import ClassifierFreeGuidance, Context, Intensity


class Recorder:
    """Knows two answers, one with covariates and one without, and remembers what it was asked."""

    conditional = Intensity(torch.tensor([[4.0, 0.5]]), torch.tensor([[2.0, 9.0]]))
    unconditional = Intensity(torch.tensor([[1.0, 2.0]]), torch.tensor([[8.0, 1.0]]))

    def __init__(self, with_shape: bool = True):
        self.with_shape = with_shape
        self.contexts: list[Context] = []

    def __call__(self, x_t, p, context):
        self.contexts.append(context)
        answer = self.unconditional if bool((context.categories < 0).all()) else self.conditional
        return answer if self.with_shape else Intensity(answer.mean)


@pytest.fixture
def context(make_context) -> Context:
    return make_context(1, 2, categories=torch.tensor([[3]]), continuous=torch.tensor([[0.7]]))


def ask(denoiser, context: Context) -> Intensity:
    return denoiser(torch.zeros(1, 2), torch.zeros(1, 1), context)


def test_scale_1_is_the_denoiser_itself():
    denoiser = Recorder()
    assert ClassifierFreeGuidance(1.0).wrap(denoiser) is denoiser
    assert ClassifierFreeGuidance().wrap(denoiser) is denoiser


def test_scale_0_asks_once_and_without_covariates(context):
    denoiser = Recorder()
    assert ask(ClassifierFreeGuidance(0.0).wrap(denoiser), context) is Recorder.unconditional
    (asked,) = denoiser.contexts
    assert bool((asked.categories == -1).all() & asked.continuous.isnan().all())
    assert asked.counts is context.counts
    assert asked.known is context.known
    assert asked.noised is context.noised


@pytest.mark.parametrize(
    ("scale", "mean", "shape"),
    [
        (2.0, [16.0, 0.125], [2.0, 9.0]),  # conditional² / unconditional; shapes are not extrapolated
        (0.5, [2.0, 1.0], [4.0, 3.0]),  # geometric means
        (-1.0, [0.25, 8.0], [8.0, 1.0]),  # unconditional² / conditional
    ],
)
def test_other_scales_mix_log_intensities(scale, mean, shape, context):
    denoiser = Recorder()
    guided = ask(ClassifierFreeGuidance(scale).wrap(denoiser), context)
    torch.testing.assert_close(guided.mean, torch.tensor([mean]))
    torch.testing.assert_close(guided.shape, torch.tensor([shape]))
    with_covariates, without = denoiser.contexts
    assert with_covariates is context
    assert bool((without.categories == -1).all() & without.continuous.isnan().all())


def test_a_head_without_shapes_stays_without(context):
    guided = ask(ClassifierFreeGuidance(2.0).wrap(Recorder(with_shape=False)), context)
    torch.testing.assert_close(guided.mean, torch.tensor([[16.0, 0.125]]))
    assert guided.shape is None


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_rates_of_zero_stay_finite(scale, context):
    def zero(x_t, p, context):
        return Intensity(torch.zeros_like(x_t))

    guided = ask(ClassifierFreeGuidance(scale).wrap(zero), context)
    torch.testing.assert_close(guided.mean, torch.zeros(1, 2), rtol=0, atol=1e-11)
