import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from countsdiff.image.data import Images
from countsdiff.image.model import Difficulty, ImageDiffusion, channel_statistics, linear_estimate
from countsdiff.image.pixel_model import PixelModel
from countsdiff.image.training import _StepImages, train
from countsdiff.model_files import ModelFileError


def weights(model: PixelModel) -> dict[str, torch.Tensor]:
    return model.denoiser.state_dict()


@pytest.fixture
def module(tiny, images):
    torch.manual_seed(0)
    return ImageDiffusion(tiny, images.shape, [2], *channel_statistics(images))


@pytest.mark.parametrize("start", [{"dropout": 0.3}, {"linear": True, "balanced": True}])
def test_a_resumed_training_equals_one_that_was_not_interrupted(tiny, images, tmp_path, start):
    config = tiny.with_options(**start)
    whole = train(images, config, tmp_path / "whole", seed=3, accelerator="cpu")
    slices = 0
    while (model := train(images, config, tmp_path / "cut", seed=3, accelerator="cpu", max_minutes=0.0)) is None:
        slices += 1
        torch.rand(7)  # what happens in between does not matter
    assert slices == 2
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(model)[name]), name
    rows = [(tmp_path / run / "history.csv").read_text().split() for run in ("whole", "cut")]
    assert [r.split(",")[:2] for r in rows[0]] == [r.split(",")[:2] for r in rows[1]]
    other = train(images, config, tmp_path / "other", seed=4, accelerator="cpu")
    assert not torch.equal(weights(whole)["backbone.log_mean.weight"], weights(other)["backbone.log_mean.weight"])


def test_training_leaves_the_random_numbers_of_others_alone(tiny, images, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(images, tiny.with_options(n_steps=4), tmp_path, accelerator="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_a_training_goes_on_with_the_same_settings_only(tiny, images, tmp_path):
    train(images, tiny, tmp_path, accelerator="cpu", max_minutes=0.0)
    with pytest.raises(ValueError, match=r"has lr 0\.002, not 0\.1; give the same settings"):
        train(images, tiny.with_options(lr=0.1), tmp_path, accelerator="cpu")
    with pytest.raises(ValueError, match="has seed 0, not 1"):
        train(images, tiny, tmp_path, seed=1, accelerator="cpu")


def test_how_to_draw_may_change_while_a_training_goes_on(tiny, images, tmp_path):
    assert train(images, tiny, tmp_path, max_minutes=0, accelerator="cpu") is None
    other = tiny.with_options(sample_steps=tiny.sample_steps + 1, guidance=1.5, attrition=0.1, births="round")
    model = train(images, other, tmp_path, accelerator="cpu")
    assert model.config == other


def test_a_training_goes_on_with_the_same_images_only(tiny, images, tmp_path):
    train(images, tiny, tmp_path, accelerator="cpu", max_minutes=0.0)
    for other in (replace(images, pixels=255 - images.pixels), replace(images, codes=1 - images.codes)):
        with pytest.raises(ValueError, match="has checksum of images"):
            train(other, tiny, tmp_path, accelerator="cpu")


def test_every_image_is_seen_as_often_as_any_other(tiny, images):
    # 8 images a step, 40 images: five steps are an epoch, wherever a slice begins
    config = tiny.with_options(batch_size=8)
    everything = [_StepImages(images, config, 0, start=0)[step][0] for step in range(10)]
    later = [_StepImages(images, config, 0, start=3)[step][0] for step in range(7)]
    assert all(torch.equal(a, b) for a, b in zip(everything[3:], later, strict=True))
    for epoch in (everything[:5], everything[5:]):
        seen = torch.cat(epoch).numpy().reshape(40, -1)
        assert sorted(map(bytes, seen)) == sorted(map(bytes, images.pixels.reshape(40, -1)))
    assert not torch.equal(everything[0], everything[5])


def test_the_loss_is_zero_for_a_denoiser_that_knows_and_positive_else(tiny, images, generator, module):
    # one image only, over and over: what is lost is known exactly
    black_and_white = np.zeros((8, 3, 8, 8), dtype=np.uint8)
    black_and_white[:, :, ::2] = 255
    pixels, codes = torch.from_numpy(black_and_white), torch.zeros(8, 1, dtype=torch.int64)
    assert module.loss((pixels, codes), generator).item() > 0.1
    truth = pixels.flatten(1).float()

    class Knows(torch.nn.Module):
        def forward(self, x_t, p, context):
            from countsdiff.core import Intensity

            return Intensity((truth - context.counts - x_t).clamp(min=0.0) * context.noised / (1.0 - p))

    module.denoiser = Knows()
    assert float(module.loss((pixels, codes), generator)) == pytest.approx(0.0, abs=1e-3)


def test_channel_statistics_are_moments(images):
    mean, dispersion = channel_statistics(images)
    values = images.pixels.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(mean, values.mean(1), rtol=1e-6)
    np.testing.assert_allclose(mean + mean**2 / dispersion, values.var(1), rtol=1e-5)


def test_a_linear_estimate_is_of_images_and_their_mirror_images(tiny, images):
    assert linear_estimate(images, tiny) is None
    estimate = linear_estimate(images, tiny.with_options(linear=True))
    both = np.concatenate([images.pixels, images.pixels[..., ::-1]]).reshape(80, -1)
    np.testing.assert_allclose(estimate.mean, both.mean(0), rtol=1e-5)
    alone = linear_estimate(images, tiny.with_options(linear=True, flip=False))
    np.testing.assert_allclose(alone.mean, images.pixels.reshape(40, -1).mean(0), rtol=1e-5)


def test_a_model_that_starts_from_a_linear_estimate(tiny, images, tmp_path):
    config = tiny.with_options(linear=True, n_steps=4, save_every=4)
    model = train(images, config, tmp_path, accelerator="cpu")
    assert not (weights(model)["backbone.log_mean.weight"] == 0).all()
    again = PixelModel.load(tmp_path)
    hidden = np.random.default_rng(0).random((5, 8, 8)) < 0.5
    for output in ("mean", "sample"):
        filled = (m.inpaint(images.pixels[:5], hidden, output=output, batch_size=5) for m in (model, again))
        np.testing.assert_array_equal(*filled)
    # two kinds of images, 160 apart: half of the pixels tell which it is
    everywhere = np.broadcast_to(hidden[:, None], images.pixels[:5].shape)
    error = (model.inpaint(images.pixels[:5], hidden, batch_size=5) - images.pixels[:5].astype(float))[everywhere]
    assert np.sqrt(np.square(error).mean()) < 40
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["config"]["linear"] = False
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelFileError, match="such as 'estimate"):
        PixelModel.load(tmp_path)


def test_difficulty_learns_the_loss_that_is_to_be_expected():
    torch.manual_seed(0)
    difficulty, generator = Difficulty(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(difficulty.parameters(), lr=5e-3)
    p, known = torch.tensor([[0.0], [0.0], [0.5]]), torch.tensor([[False, False], [False, True], [False, False]])
    assert torch.equal(difficulty(p, known), torch.zeros(3))
    mean = torch.tensor([16.0, 4.0, 0.5])
    for _ in range(600):
        losses = mean * torch.rand(20, 3, generator=generator) * 2.0
        expected = difficulty(p, known)
        optimiser.zero_grad()
        (losses * torch.exp(-expected) + expected).mean().backward()
        optimiser.step()
    torch.testing.assert_close(difficulty(p, known).exp().detach(), mean, rtol=0.1, atol=0.0)


def test_balanced_images_count_by_what_was_to_be_expected(tiny, images):
    batch = torch.from_numpy(images.pixels), torch.from_numpy(images.codes)

    def loss(config, log_expected=0.0):
        torch.manual_seed(0)
        module = ImageDiffusion(config, images.shape, [2], *channel_statistics(images))
        if config.balanced:
            torch.nn.init.constant_(module.difficulty.layers[-1].bias, log_expected)
            groups = module.configure_optimizers()["optimizer"].param_groups
            assert [group["initial_lr"] for group in groups] == [config.lr, 5 * config.lr]
        return float(module.loss(batch, torch.Generator().manual_seed(0)))

    plain, balanced = loss(tiny), loss(tiny.with_options(balanced=True))
    assert balanced == pytest.approx(plain)
    assert loss(tiny.with_options(balanced=True), 2.0) == pytest.approx(plain * np.exp(-2.0) + 2.0, rel=1e-5)


def test_learning_rate_warms_up_and_decays(tiny, images, module):
    factor = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [factor(k) for k in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    module.config = tiny.with_options(decay=True)
    factor = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [factor(4), factor(8), factor(12)] == pytest.approx([1.0, 0.5, 0.0])


def test_classes_are_learned_and_matter(tiny, images, tmp_path):
    config = tiny.with_options(share_generated=1.0, n_steps=200, save_every=200, lr=5e-3, ema_decay=0.8, guidance=1.0)
    model = train(images, config, tmp_path, accelerator="cpu")
    codes = np.array([[0], [1]] * 6)
    drawn = model.sample(12, codes=codes, seed=0, batch_size=12)
    dark, bright = drawn[::2].mean(), drawn[1::2].mean()
    assert abs(dark - 40) < 40
    assert abs(bright - 200) < 40
    again = PixelModel.load(tmp_path)
    np.testing.assert_array_equal(again.sample(12, codes=codes, seed=0, batch_size=12), drawn)
    assert (again.config, again.categories) == (config, images.categories)


def test_a_model_without_classes(tiny, images, tmp_path):
    config = tiny.with_options(conditional=False, n_steps=4)
    model = train(images, config, tmp_path, accelerator="cpu")
    assert model.categories == ()
    assert json.loads((tmp_path / "config.json").read_text())["categories"] == []
    assert model.sample(2, batch_size=2).shape == (2, 3, 8, 8)


def test_jump_trains_and_samples_numbers_that_are_no_counts(tiny, images, tmp_path):
    config = replace(
        tiny,
        head="rate",
        schedule="jump",
        weight="unit",
        births="poisson",
        jump_scale=0.5,
        share_generated=1.0,
        n_steps=150,
        save_every=150,
        lr=5e-3,
        ema_decay=0.8,
    )
    model = train(images, config, tmp_path, accelerator="cpu")
    drawn = model.sample(8, codes=np.array([[0], [1]] * 4), batch_size=8, guidance=1.0, sample_steps=20)
    assert abs(drawn[::2].mean() - 40) < 40
    assert abs(drawn[1::2].mean() - 200) < 40


def test_a_loss_that_is_no_number_is_an_error(tiny, images, tmp_path):
    with pytest.raises(ValueError, match="The loss is nan at step"):
        train(images, tiny.with_options(lr=float("inf")), tmp_path, accelerator="cpu")


def test_there_is_no_model_before_training_has_ended(tiny, images, tmp_path):
    assert train(images, tiny, tmp_path, accelerator="cpu", max_minutes=0.0) is None
    with pytest.raises(FileNotFoundError, match="there is no trained model"):
        PixelModel.load(tmp_path)


def test_images_of_odd_sides_are_refused(tiny, images, tmp_path):
    odd = Images(images.pixels[:, :, :7, :7].copy(), images.codes, images.categories)
    with pytest.raises(ValueError, match="halves its images 1 times, which 7 × 7 pixels do not allow"):
        train(odd, tiny, tmp_path, accelerator="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_compiled_and_in_bfloat16(tiny, images, tmp_path):
    models = {
        "plain": train(images, tiny, tmp_path / "plain", accelerator="cpu"),
        "cuda": train(
            images, tiny.with_options(precision="bf16-mixed", compile=True), tmp_path / "cuda", accelerator="gpu"
        ).to("cuda"),
    }
    drawn = {name: model.sample(64, sample_steps=4).astype(float) for name, model in models.items()}
    assert drawn["cuda"].mean() == pytest.approx(drawn["plain"].mean(), abs=10.0)
    assert drawn["cuda"].std() == pytest.approx(drawn["plain"].std(), rel=0.1)
