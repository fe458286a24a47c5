import json

import numpy as np
import pytest

from countsdiff.core import SamplerConfig, TimeSampler, get_schedule
from countsdiff.image.config import ImageConfig, config_names, get_config

CIFAR = [f"cifar10_{s}{c}" for s in ("blackout", "cosine", "jump", "logit_linear") for c in ("", "_unconditional")]


def test_there_is_a_configuration_for_everything_the_paper_has():
    assert config_names() == sorted([*CIFAR, "celeba64", "half-hour", "small"])


@pytest.mark.parametrize("name", [*CIFAR, "celeba64", "half-hour", "small"])
def test_configurations_are_what_the_core_understands(name):
    config = get_config(name)
    TimeSampler(get_schedule(config.schedule), config.weight, config.spacing, config.share_empty)
    SamplerConfig(births=config.births, attrition=config.attrition, attrition_kind=config.attrition_kind)
    assert ImageConfig.from_dict(config.to_dict()) == config
    assert all(width % config.n_groups == 0 for width in config.widths)


@pytest.mark.parametrize("name", [*CIFAR, "celeba64"])
def test_the_paper_s_settings(name):
    config = get_config(name)
    assert (min(config.widths), max(config.widths), config.dropout) == (128, 256, 0.1)
    assert config.batch_size == (100 if name == "celeba64" else 256)
    assert (config.lr, config.warmup, config.ema_decay, config.clip) == (2e-4, 5_000, 0.9999, 1.0)
    assert (config.share_unconditional, config.guidance, config.sample_steps) == (0.2, 2.0, 1_000)
    assert config.head == "rate"
    assert config.spacing == "t"
    assert config.conditional == ("unconditional" not in name)
    if "cosine" in name or "logit" in name or name == "celeba64":
        assert (config.attrition, config.attrition_kind, config.weight) == (0.005, "rescaled", "paper")


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("widths: [8, 16]\nlr: 1.0e-3\n")
    config = get_config(tmp_path / "mine.yaml")
    assert (config.widths, config.lr, config.batch_size) == ((8, 16), 1e-3, 256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1.0", "Unknown setting 'learning_rate'"),
        ("head: gamma", "more spread than pixels are"),
        ("n_steps: 0", "n_steps must be at least 1; got 0"),
        ("- a", "name: value"),
        ("n_steps: many", "n_steps is 'many'"),
        ("widths: 8", "widths is 8"),
        ("size: 0", "size must be at least 1"),
        ("linear: true", "for the heads bounded and x0"),
        ("{linear: true, head: x0, jump_scale: 0.5}", "leave out jump_scale"),
        ("a: [", "no YAML"),
    ],
)
def test_bad_settings_are_named(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        get_config(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {"attrition": 5.0},
        {"schedule": "nonsense"},
        {"weight": "nonsense"},
        {"share_generated": 3.0},
        {"share_empty": -0.1},
        {"dropout": 2.0},
        {"lr": -1.0},
        {"jump_scale": 0.0},
        {"guidance": float("nan")},
        {"precision": "32"},  # which Lightning takes
        {"n_steps": 2.5},
        {"n_steps": np.int64(2)},
        {"head": "nonsense"},
    ],
)
def test_what_could_not_be_used_after_training_is_refused_before(settings):
    with pytest.raises(ValueError, match="[Aa]ttrition|nonsense|share|dropout|positive|finite|32-true|of type int"):
        ImageConfig.from_dict(settings)
    with pytest.raises(ValueError, match=f"(?i){next(iter(settings))}"):
        ImageConfig(**settings)


def test_options_may_be_numbers_of_numpy(tiny):
    config = tiny.with_options(n_steps=np.int64(3), guidance=np.float32(1.5))
    assert json.loads(json.dumps(config.to_dict())) == tiny.to_dict() | {"n_steps": 3, "guidance": 1.5}


def test_names_are_offered():
    with pytest.raises(ValueError, match=r"no configuration 'smal'; choose one of .*small, or a file"):
        get_config("smal")


def test_options_that_are_none_change_nothing(tiny):
    assert tiny.with_options(n_steps=None, lr=None) == tiny
    assert tiny.with_options(n_steps=3).n_steps == 3
