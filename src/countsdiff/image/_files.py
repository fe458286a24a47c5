"""A trained model of images in a folder: its weights and settings, both or neither."""

import json
import math
from pathlib import Path

import torch

from countsdiff.core.denoiser import Denoiser, with_current_names
from countsdiff.image.config import ImageConfig
from countsdiff.image.model import build_denoiser
from countsdiff.model_files import believing, check_weights, read_weights, replacing, write_weights
from countsdiff.nn import LinearEstimate

Shape = tuple[int, int, int]
Categories = tuple[tuple[str, ...], ...]

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def write(folder: Path, denoiser: Denoiser, config: ImageConfig, shape: Shape, categories: Categories) -> None:
    """Write ``model.safetensors`` and ``config.json``."""
    record = {"config": config.to_dict(), "shape": shape, "categories": categories}
    with replacing(folder, last=_CONFIG) as new:
        write_weights(denoiser, new / _WEIGHTS)
        (new / _CONFIG).write_text(json.dumps(record, indent=2) + "\n")


def read(folder: Path) -> tuple[Denoiser, ImageConfig, Shape, Categories]:
    """Read what :func:`write` wrote, on the CPU; errors are those of ``PixelModel.load``."""
    if not (folder / _WEIGHTS).is_file() or not (folder / _CONFIG).is_file():
        raise FileNotFoundError(f"{folder}: there is no trained model ({_WEIGHTS}, {_CONFIG}) in this folder.")
    state = with_current_names(read_weights(folder / _WEIGHTS))
    with believing(folder / _CONFIG):
        record = json.loads((folder / _CONFIG).read_text())
        config, shape = ImageConfig.from_dict(record["config"]), tuple(record["shape"])
        categories = tuple(map(tuple, record["categories"]))
        if config.depth * len(config.widths) > len(state):
            raise ValueError(f"it describes a network of depth {config.depth}, more than there are weights")
        # shapes before memory: numbers in a file may ask for any amount of it, those of the weights are there
        with torch.device("meta"):
            outline = _untrained(config, shape, categories)
    check_weights(state, outline, folder / _WEIGHTS)
    denoiser = _untrained(config, shape, categories)
    denoiser.load_state_dict(state)
    return denoiser, config, shape, categories


def _untrained(config: ImageConfig, shape: Shape, categories: Categories) -> Denoiser:
    """The network of a configuration, with places for the weights and statistics of a trained one."""
    ones = torch.ones(shape[0])
    estimate = LinearEstimate.unfitted(math.prod(shape)) if config.linear else None
    return build_denoiser(config, shape, [len(names) for names in categories], ones, ones, estimate)
