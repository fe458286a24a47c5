import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from countsdiff.core import Intensity
from countsdiff.image.model import build_denoiser
from countsdiff.image.pixel_model import PixelModel
from countsdiff.image.sampling import _below
from countsdiff.model_files import ModelFileError


@pytest.fixture
def model(tiny):
    """An untrained model past its zero start, of two classes."""
    torch.manual_seed(0)
    denoiser = build_denoiser(tiny, (3, 8, 8), [2], torch.full((3,), 120.0), torch.full((3,), 3.5))
    nn.init.normal_(denoiser.backbone.log_mean.weight, std=1.0)
    return PixelModel(denoiser.eval(), tiny, (3, 8, 8), (("a", "b"),))


@pytest.mark.parametrize("attrition", [0.0, 0.005, 0.6])
@pytest.mark.parametrize("births", ["stochastic", "round"])
def test_an_oracle_s_samples_are_the_truth(oracle, attrition, births):
    model, truth = oracle()
    drawn = model.sample(5, seed=1, batch_size=4, sample_steps=7, attrition=attrition, births=births)
    np.testing.assert_array_equal(drawn, np.broadcast_to(truth, (5, 3, 8, 8)))


def test_options_of_training_are_none_of_drawing(model):
    for call in (
        lambda: model.sample(1, n_steps=50),
        lambda: model.denoise(np.zeros((1, 3, 8, 8), np.uint8), 0.5, lr=9.0),
    ):
        with pytest.raises(TypeError, match=r"There is no option '(n_steps|lr)' of drawing images; there are sample_"):
            call()


@pytest.mark.parametrize("method", ["conditional", "repaint"])
def test_an_oracle_fills_in_the_truth(oracle, method):
    model, truth = oracle()
    pixels = np.broadcast_to(truth, (3, 3, 8, 8)).copy()
    hidden = np.random.default_rng(0).random((3, 8, 8)) < 0.6
    spoilt = np.where(hidden[:, None], 7, pixels).astype(np.uint8)
    drawn = model.inpaint(spoilt, hidden, output="sample", method=method, batch_size=2)
    np.testing.assert_array_equal(drawn, pixels)


def test_an_oracle_s_means_are_the_truth(oracle):
    model, truth = oracle()
    pixels = np.broadcast_to(truth, (3, 3, 8, 8)).copy()
    hidden = np.random.default_rng(0).random((3, 8, 8)) < 0.6
    np.testing.assert_allclose(model.inpaint(pixels, hidden, batch_size=2), pixels, rtol=1e-5)
    thinned = np.random.default_rng(1).binomial(pixels, 0.2).astype(np.uint8)
    np.testing.assert_allclose(model.denoise(thinned, 0.2, batch_size=2), pixels, rtol=1e-5)
    drawn = model.denoise(thinned, 0.2, output="sample", batch_size=2)
    np.testing.assert_array_equal(drawn, pixels)
    assert (drawn >= thinned).all()


def test_known_pixels_come_back_and_hidden_ones_are_not_looked_at(model, images):
    hidden = np.random.default_rng(0).random((4, 8, 8)) < 0.5
    pixels = images.pixels[:4]
    spoilt = np.where(hidden[:, None], 255 - pixels, pixels).astype(np.uint8)
    everywhere = np.broadcast_to(hidden[:, None], pixels.shape)
    for output in ("mean", "sample"):
        answer, other = (model.inpaint(p, hidden, output=output, batch_size=4) for p in (pixels, spoilt))
        np.testing.assert_array_equal(answer, other)
        np.testing.assert_array_equal(answer[~everywhere], pixels[~everywhere])
        assert answer.dtype == (np.float32 if output == "mean" else np.uint8)
    # what is known makes a difference
    changed = np.where(hidden[:, None], pixels, pixels // 2).astype(np.uint8)
    assert not np.allclose(model.inpaint(changed, hidden)[everywhere], model.inpaint(pixels, hidden)[everywhere])


class Greedy(nn.Module):
    """Promises more photons than a pixel holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(192))

    def forward(self, x_t, p, context):
        return Intensity(torch.full_like(x_t, 1e5))


@pytest.mark.parametrize("attrition", [0.0, 0.3])
def test_no_value_ever_lies_outside_0_to_255(model, tiny, attrition):
    seen = []

    def look(state):
        seen.append((float(state.x.min()), float(state.x.max())))

    options = {"attrition": attrition, "sample_steps": 9, "batch_size": 8, "callback": look}
    greedy = PixelModel(Greedy(), tiny, (3, 8, 8), ()).sample(8, **options)
    assert greedy.min() == 255 or attrition > 0.0
    # guidance exaggerates as much as it likes
    model.sample(8, codes=np.zeros((8, 1), dtype=np.int64), guidance=30.0, **options)
    assert len(seen) == 18
    assert min(low for low, _ in seen) >= 0.0
    assert max(high for _, high in seen) == 255.0


def test_a_draw_depends_on_seed_and_number_only(model):
    codes = np.arange(6).reshape(-1, 1) % 2
    six = model.sample(6, codes=codes, seed=1, batch_size=4)
    np.testing.assert_array_equal(six, model.sample(6, codes=codes, seed=1, batch_size=3))
    np.testing.assert_array_equal(six[:3], model.sample(3, codes=codes[:3], seed=1, batch_size=4))
    np.testing.assert_array_equal(six[3:], model.sample(3, codes=codes[3:], seed=1, batch_size=4, first=3))
    assert not np.array_equal(six, model.sample(6, codes=codes, seed=2, batch_size=4))
    assert not np.array_equal(six[0], six[2])


def test_classes_and_guidance_change_the_draw(model):
    zeros, ones = np.zeros((4, 1), dtype=np.int64), np.ones((4, 1), dtype=np.int64)
    draws = [model.sample(4, codes=c, batch_size=4, guidance=1.0) for c in (zeros, ones, None)]
    draws.append(model.sample(4, codes=zeros, batch_size=4, guidance=4.0))
    assert len({d.tobytes() for d in draws}) == 4
    # guidance 0 is the model without classes
    np.testing.assert_array_equal(model.sample(4, codes=ones, batch_size=4, guidance=0.0), draws[2])


def test_the_first_state_of_a_path_is_thin(oracle):
    model, truth = oracle()
    states = {}
    model.sample(4, batch_size=4, sample_steps=20, callback=lambda s: states.update({s.p: s.x.mean(0)}))
    assert list(states) == sorted(states)
    p = next(p for p in states if p > 0.3)
    assert float(states[p].sum()) == pytest.approx(p * truth.sum(), rel=0.1)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.999])
def test_untrained_denoising_is_conjugacy(model, images, p):
    nn.init.zeros_(model.denoiser.backbone.log_mean.weight)
    thinned = np.random.default_rng(0).binomial(images.pixels[:4] // 2, p).astype(np.uint8)
    # a gamma law of mean 120 and shape 3.5, updated by a count seen at exposure p; 1 − p is still to come
    expected = thinned + (1.0 - p) * 120.0 * (3.5 + thinned) / (3.5 + p * 120.0)
    np.testing.assert_allclose(model.denoise(thinned, p, batch_size=4), expected, rtol=1e-5)


def test_photons_that_were_counted_stay(model, images):
    thinned = np.random.default_rng(0).binomial(images.pixels[:4], 0.9).astype(np.uint8)
    drawn = model.denoise(thinned, 0.9, output="sample", attrition=0.5, sample_steps=20, batch_size=4)
    assert (drawn >= thinned).all()


def test_photons_are_not_the_numbers_that_jump_draws_from_them(model, images):
    jump = replace(model, config=model.config.with_options(head="x0", jump_scale=0.5))
    with pytest.raises(ValueError, match="counts 0.5 for a photon"):
        jump.denoise(images.pixels[:2], 0.5)


def test_photons_are_not_counts_drawn_around_them(model, images):
    jump = replace(model, config=model.config.with_options(head="x0", jump_scale=1.0))
    with pytest.raises(ValueError, match="counts 1 for a photon"):
        jump.denoise(images.pixels[:2], 0.5)


class Told(nn.Module):
    """60 or 120 photons by the class, 90 where it is unknown: what guidance is to go by."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(1))

    def forward(self, x_t, p, context):
        photons = torch.tensor([60.0, 120.0, 90.0])[context.categories]
        return Intensity((photons - x_t) / (1.0 - p))


def test_means_are_expectations_unless_guidance_is_asked_for(tiny):
    model = PixelModel(Told(), tiny.with_options(guidance=2.0), (3, 8, 8), (("a", "b"),))
    pixels, codes = np.zeros((2, 3, 8, 8), np.uint8), np.array([[0], [1]])
    everything = np.ones((2, 8, 8), dtype=bool)
    for options, expected in (({}, (60, 120)), ({"guidance": None}, (60, 120)), ({"guidance": 2.0}, (40, 160))):
        for answer in (
            model.inpaint(pixels, everything, codes=codes, **options),
            model.denoise(pixels, 0.0, codes=codes, **options),
        ):
            np.testing.assert_allclose(answer.mean((1, 2, 3)), expected, rtol=1e-4)
    drawn = model.sample(2, codes=codes, sample_steps=50, births="stochastic", attrition=0.0)
    below, above = drawn.mean((1, 2, 3))
    assert (below < 57, above > 123) == (True, True)  # draws are guided as the configuration says


def test_a_full_pixel_has_nothing_to_lose_where_p_rounds_to_one():
    bounded = _below(lambda x_t, p, context: Intensity(torch.full_like(x_t, 3.0)), 255.0)
    x_t = torch.tensor([[255.0, 254.0]])
    answer = bounded(x_t, torch.ones(1, 1), None).mean
    np.testing.assert_array_equal(answer, [[0.0, 3.0]])


def test_refuses_outputs_and_methods_that_there_are_not(model, images):
    hidden = np.ones((2, 8, 8), dtype=bool)
    for call, match in (
        (lambda: model.inpaint(images.pixels[:2], hidden, output="median"), "output 'median'; choose one of mean, sam"),
        (lambda: model.inpaint(images.pixels[:2], hidden, method="magic"), "method 'magic'; choose one of conditional"),
        (lambda: model.denoise(images.pixels[:2], 0.5, output="median"), "output 'median'"),
        (lambda: model.sample(2, codes=np.zeros((2, 1))), "codes are whole numbers; got float64"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_known_pixels_are_nothing_to_a_model_that_never_had_any(model, images):
    hidden = np.zeros((2, 8, 8), dtype=bool)
    hidden[:, :4] = True
    never = replace(model, config=model.config.with_options(share_generated=1.0))
    with pytest.warns(UserWarning, match="share_generated is 1.*method='repaint'"):
        never.inpaint(images.pixels[:2], hidden)


def test_no_images_and_images_in_any_order(model, images):
    assert model.sample(0).shape == (0, 3, 8, 8)
    none = images.pixels[:0]
    assert model.inpaint(none, np.ones((0, 8, 8), dtype=bool)).shape == model.denoise(none, 0.5).shape == none.shape
    turned = model.denoise(images.pixels[:4][::-1], 0.5, batch_size=4)
    np.testing.assert_array_equal(turned, model.denoise(images.pixels[:4][::-1].copy(), 0.5, batch_size=4))


def test_weights_come_back_from_safetensors(model, tmp_path):
    model.save(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = PixelModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.sample(2, batch_size=2), model.sample(2, batch_size=2))


def test_weights_of_a_denoiser_in_one_piece_are_read(model, tmp_path):
    # saved before heads and calibration were modules of their own
    model.save(tmp_path)
    weights = {
        name.replace("calibration.", ""): value for name, value in load_file(tmp_path / "model.safetensors").items()
    }
    assert "level" in weights
    save_file(weights, tmp_path / "model.safetensors")
    loaded = PixelModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.sample(2, batch_size=2), model.sample(2, batch_size=2))


def test_a_failure_leaves_the_older_model(model, tmp_path, monkeypatch):
    model.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(json, "dumps", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("model.safetensors", lambda data: data[:-1], "it is no whole safetensors file"),
        ("config.json", lambda data: data[:-9], "this file cannot be used"),
        ("config.json", lambda data: b"[]", "this file cannot be used"),
        (
            "config.json",
            lambda data: data.replace(b'"rate"', b'"best"').replace(b'"bounded"', b'"best"'),
            "head is 'best'",
        ),
        (
            "config.json",
            lambda data: data.replace(b'"a",', b'"a", "c",'),
            "model.safetensors: .* in the model described",
        ),
        # which memory has no room for
        ("config.json", lambda data: re.sub(rb'"widths": \[[^]]*', b'"widths": [4194304, 8388608', data), "of shape"),
        ("config.json", lambda data: re.sub(rb'"depth": \d+', b'"depth": 1000000000', data), "of depth 1000000000"),
    ],
)
def test_damaged_files_are_named(model, tmp_path, name, damage, says):
    model.save(tmp_path)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(ModelFileError, match=says):
        PixelModel.load(tmp_path)


def test_bad_requests_are_named(model, images):
    hidden = np.zeros((2, 8, 8), dtype=bool)
    with pytest.raises(ValueError, match=r"knows uint8 images of shape \(3, 8, 8\)"):
        model.inpaint(images.pixels[:2, :, :4], hidden)
    with pytest.raises(ValueError, match="hidden is boolean of shape"):
        model.inpaint(images.pixels[:2], hidden[:, :4])
    with pytest.raises(ValueError, match="RePaint draws samples only"):
        model.inpaint(images.pixels[:2], hidden, method="repaint")
    with pytest.raises(ValueError, match=r"in \[0, 1\); got 1"):
        model.denoise(images.pixels[:2], 1.0)
    with pytest.raises(ValueError, match="codes have the shape"):
        model.sample(2, codes=np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(ValueError, match="got 0 to 2"):
        model.sample(2, codes=np.array([[0], [2]]))
