"""Going on with a training: what has to be the same, and a trainer that writes checkpoints."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from countsdiff.checkpoint import SafeCheckpoints, check_same_training, checksum
from countsdiff.core.denoiser import WEIGHTS_FORMAT
from countsdiff.model._base import CellModel
from countsdiff.model._callbacks import Checkpoints
from countsdiff.model._data import covariate_columns


def fingerprint(model: CellModel) -> dict[str, Any]:
    """What must be the same for a training to go on: the data and the model, before the training."""
    data, setup = model.adata, model._setup_args()
    categorical, numbers = covariate_columns(setup)
    names = "\n".join([*map(str, data.obs_names), *map(str, data.var_names)])
    # of first weights the seed says enough, but where they were trained before
    weights = model.module.denoiser.backbone.state_dict().values() if model.starts_from_reference_ else ()
    return {
        "format of weights": WEIGHTS_FORMAT,
        "cells": model.summary_stats.n_cells,
        "genes": model.summary_stats.n_vars,
        "checksum of names": checksum([names.encode()]),
        "checksum of counts": checksum(_counts_and_marks(model)),
        **{
            f"checksum of {column}": checksum([repr(data.obs[column].tolist()).encode()])
            for column in (*categorical, *numbers)
        },
        "checksum of the reference": checksum(value.cpu().numpy().tobytes() for value in weights),
        "model": model._model_summary_string,
        **{k: v for k, v in model.init_params_["non_kwargs"].items() if k != "seed"},
        "set-up": str({name: value for name, value in setup.items() if value is not None}),
    }


def checkpointing(file: Path, training: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a trainer that writes checkpoints of `training` to `file`, and goes on from there."""
    storage = SafeCheckpoints()
    added: dict[str, Any] = {
        "callbacks": [*settings["callbacks"], Checkpoints(file, training)],
        "plugins": [*settings.get("plugins", ()), storage],
    }
    if file.exists():
        check_same_training(storage.load_checkpoint(file)["training"], training, file)
        added["ckpt_path"] = str(file)
    return added


def _counts_and_marks(model: CellModel) -> Iterator[bytes]:
    """All counts, and which of them are missing, in pieces."""
    reader = model._reader(model.adata)
    for rows in reader.chunks():
        counts, missing = reader(rows)
        yield counts.tobytes()
        yield np.packbits(missing).tobytes()
