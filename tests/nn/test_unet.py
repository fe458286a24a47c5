import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from countsdiff.core import Backbone, BoundedHead, Context, Denoiser, Evidence
from countsdiff.nn import UNet
from countsdiff.nn.unet import noise_time

SHAPE = (3, 8, 8)
N_VARS = 3 * 8 * 8
SIZE = {"widths": (8, 16), "depth": 1, "attention": (1,), "n_groups": 4}


def untrained(**settings) -> UNet:
    torch.manual_seed(0)
    return UNet(SHAPE, [3, 2], 1, **{**SIZE, "dropout": 0.5, **settings})


@pytest.fixture
def network() -> UNet:
    """A network past its zero start."""
    network = untrained().eval()
    nn.init.normal_(network.log_mean.weight, std=0.5)
    return network


@pytest.fixture
def evidence(make_evidence) -> Evidence:
    evidence = make_evidence(4, N_VARS)
    p = torch.tensor([[0.0], [0.3], [0.31234567], [1.0]])
    return replace(evidence, log_ratio=0.3 * evidence.log_ratio, summary=torch.cat([p, evidence.summary[:, 1:]], dim=1))


def test_it_has_nothing_to_add_at_the_start(evidence):
    network = untrained()
    assert isinstance(network, Backbone)
    for output in network(evidence):
        assert torch.equal(output, torch.zeros(4, N_VARS))


def test_a_row_does_not_depend_on_the_others(network, evidence):
    rows = {name: value[:2] for name, value in vars(evidence).items() if isinstance(value, torch.Tensor)}
    alone = network(replace(evidence, **rows))[0]
    torch.testing.assert_close(alone, network(evidence)[0][:2], rtol=1e-5, atol=1e-5)


def test_pixels_lie_where_their_columns_say(network, evidence):
    # a network that reads its own pixel only, through a convolution as wide as one: every output follows its input
    with torch.no_grad():
        network.unet = Identity()
        network.log_mean.weight.zero_()
        network.log_mean.weight[:, :3, 0, 0] = torch.eye(3)
    mean, _ = network(evidence)
    torch.testing.assert_close(mean, torch.expm1(evidence.log_ratio))


class Identity(nn.Module):
    def forward(self, seen, time, class_labels, return_dict):
        return (torch.cat([seen, torch.zeros(len(seen), 2, *seen.shape[2:])], dim=1),)


def test_time_is_not_rounded(network, evidence):
    asked = []
    network.unet.time_proj.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0]))
    network(evidence)
    p = evidence.summary[:, 0].double()
    expected = 1000.0 * torch.acos(p.sqrt()) / torch.acos(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(asked[0].double(), expected, rtol=0, atol=2e-4)
    assert asked[0].is_floating_point()
    assert float((asked[0] - asked[0].round()).abs().max()) > 0.1
    assert noise_time(torch.tensor([0.0, 1.0])).tolist() == [1000.0, 0.0]
    # times closer than a thousandth apart make a difference
    close = torch.cat([evidence.summary[:, :1] * 0 + 0.3, evidence.summary[:, 1:]], dim=1)
    closer = close + torch.tensor([2e-4, 0.0, 0.0])
    first, second = (network(replace(evidence, summary=s))[0] for s in (close, closer))
    assert round(float(noise_time(close[0, 0]))) == round(float(noise_time(closer[0, 0])))
    assert bool((first != second).any(1).all())


def test_an_estimate_is_one_more_input(evidence):
    network = untrained(estimate=True).eval()
    nn.init.normal_(network.log_mean.weight, std=0.5)
    first, second = (network(replace(evidence, estimate=scale * evidence.base))[0] for scale in (1.0, 1.5))
    assert bool(((first - second).abs().amax(1) > 1e-4).all())


@pytest.mark.parametrize("unknown", ["categories", "continuous"])
def test_covariates_matter_and_may_be_unknown(unknown, network, evidence):
    values = vars(evidence)[unknown]
    null = torch.full_like(values, -1 if unknown == "categories" else float("nan"))
    known, nulled = network(evidence)[0], network(replace(evidence, **{unknown: null}))[0]
    assert bool(nulled.isfinite().all())
    assert bool(((known - nulled).abs().amax(1) > 1e-4).all())


def test_the_shape_head_leaves_the_trunk_alone(network, evidence):
    nn.init.normal_(network.log_shape.weight)
    network(evidence)[1].sum().backward()
    touched = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert touched == {"log_shape.weight", "log_shape.bias"}


def test_weights_have_their_channels_last():
    weight = untrained().unet.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_counts_keep_float32_under_autocast():
    # an untrained network adds nothing in any precision: intensities must come out the same to the last bit
    network = untrained().eval()
    denoiser = Denoiser(network, torch.full((N_VARS,), 120.3), torch.full((N_VARS,), 3.7), BoundedHead(255.0))
    counts = torch.arange(4 * N_VARS, dtype=torch.float32).view(4, N_VARS) % 256
    everything = torch.ones(4, N_VARS, dtype=torch.bool)
    context = Context(
        torch.zeros(4, N_VARS), ~everything, everything, torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 1)
    )
    p = torch.tensor([[0.0], [0.2], [0.5], [0.9]])
    exact = denoiser(counts, p, context).mean
    with torch.autocast("cpu", torch.bfloat16):
        mixed = denoiser(counts, p, context).mean
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, exact)
    assert len(exact[1].unique()) > 150  # bfloat16 would not tell 254 from 255


def test_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.unets.unet_2d", None)
    with pytest.raises(ImportError, match=r"pip install 'countsdiff\[image\]'"):
        untrained()


def test_sides_must_halve():
    with pytest.raises(ValueError, match="halves its images 4 times, which 8 × 8 pixels"):
        untrained(widths=(8, 8, 8, 8, 8))
