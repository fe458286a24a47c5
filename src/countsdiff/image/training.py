"""Training in slices: every slice goes on from the last checkpoint exactly where the run would have been."""

import csv
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from countsdiff.checkpoint import SafeCheckpoints, check_same_training, checksum, stopping_as_told
from countsdiff.core.denoiser import WEIGHTS_FORMAT
from countsdiff.files import atomic
from countsdiff.image.config import ImageConfig
from countsdiff.image.data import Images
from countsdiff.image.model import Batch, ImageDiffusion, channel_statistics, linear_estimate
from countsdiff.image.pixel_model import PixelModel
from countsdiff.image.sampling import SamplerOptions

_CHECKPOINT, _RUN = "last.ckpt", "run.json"


def train(
    images: Images,
    config: ImageConfig,
    folder: str | Path,
    *,
    seed: int = 0,
    max_minutes: float | None = None,
    accelerator: str = "auto",
    callbacks: Sequence[pl.Callback] = (),
) -> PixelModel | None:
    """Train a model of images, or go on with it where the checkpoint in `folder` ends.

    Parameters
    ----------
    images
        Training images, at the size and with the classes of the configuration.
    config
        Settings, those of the first slice again.
    folder
        Where the checkpoint and the losses (``history.csv``) go, and at the end the model.
    seed
        Seed of the initial weights and of all that is drawn.
    max_minutes
        Stop at the first checkpoint after this time; None trains to the end.
    accelerator
        As for :class:`lightning.pytorch.Trainer`.
    callbacks
        Further callbacks for the trainer.

    Returns
    -------
    PixelModel or None
        The trained model, which is also saved; None if there are steps left to do.

    Raises
    ------
    ValueError
        If the loss is not a number, or the checkpoint is of another training.
    """
    if len(images) == 0:
        raise ValueError("There are no images to train on.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    what = {"n_images": len(images), "shape": [*images.shape], "categories": [[*names] for names in images.categories]}
    of_images = checksum([images.pixels.tobytes(), images.codes.tobytes()])
    what |= {"checksum of images": of_images, "format of weights": WEIGHTS_FORMAT}
    _check_run(folder, {"config": config.to_dict(), "seed": seed, **what})
    categories = images.categories if config.conditional else ()
    # the caller's random numbers are not touched: every step seeds torch's own stream for dropout
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), warnings.catch_warnings():
        # the averaged copy is meant to stay in evaluation mode, and the data go by the number of the step
        warnings.filterwarnings("ignore", message="Found .* in eval mode|You're resuming from a checkpoint that ended")
        torch.manual_seed(seed)
        statistics = (*channel_statistics(images), linear_estimate(images, config))
        module = ImageDiffusion(config, images.shape, [len(names) for names in categories], *statistics, seed=seed)
        checkpoint = folder / _CHECKPOINT if (folder / _CHECKPOINT).is_file() else None
        trainer = pl.Trainer(
            max_steps=config.n_steps,
            max_epochs=1,
            accelerator=accelerator,
            devices=1,
            precision=config.precision,
            gradient_clip_val=config.clip,
            plugins=[SafeCheckpoints()],
            callbacks=[*callbacks, _Slice(folder, config, max_minutes)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with stopping_as_told():
            trainer.fit(module, datamodule=_Steps(images, config, seed), ckpt_path=checkpoint)
    if trainer.global_step < config.n_steps:
        return None
    model = PixelModel(module.averaged.module.cpu(), config, images.shape, categories)
    model.save(folder)
    return model


def _check_run(folder: Path, run: dict[str, Any]) -> None:
    """Note what is trained in a folder, or check that it is still the same."""
    file = folder / _RUN
    if not file.is_file():
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(run, indent=2) + "\n")
        return
    before, now = ({**r, **r["config"], "config": None} for r in (json.loads(file.read_text()), run))
    of_drawing = dict.fromkeys((*SamplerOptions.__annotations__, "attrition_kind"))
    check_same_training(before | of_drawing, now | of_drawing, folder)


class _Steps(pl.LightningDataModule):
    """Minibatches from the step that training is at."""

    def __init__(self, images: Images, config: ImageConfig, seed: int):
        super().__init__()
        self._arguments = images, config, seed

    def train_dataloader(self) -> DataLoader[Batch]:
        start = 0 if self.trainer is None else self.trainer.global_step
        return DataLoader(_StepImages(*self._arguments, start), batch_size=None, shuffle=False)


class _StepImages(Dataset[Batch]):
    """Images of every step from `start` on: all images in an order of their own, again and again.

    Its length is that of the whole training, since Lightning counts the steps before `start` as taken from it.
    """

    def __init__(self, images: Images, config: ImageConfig, seed: int, start: int):
        self._images, self._seed, self._start, self._n_steps = images, seed, start, config.n_steps
        self._batch_size, self._n_covariates = config.batch_size, images.codes.shape[1] if config.conditional else 0

    def __len__(self) -> int:
        return self._n_steps

    def __getitem__(self, index: int) -> Batch:
        n = len(self._images)
        places = (self._start + index) * self._batch_size + np.arange(self._batch_size)
        rows = np.empty(self._batch_size, dtype=np.intp)
        for epoch in np.unique(places // n):
            here = places // n == epoch
            rows[here] = np.random.default_rng([self._seed, epoch]).permutation(n)[places[here] % n]
        pixels, codes = self._images.pixels[rows], self._images.codes[rows, : self._n_covariates]
        return torch.from_numpy(pixels), torch.from_numpy(codes)


class _Slice(pl.Callback):
    """Writes a checkpoint and the mean loss now and then, and ends the slice when time is up."""

    def __init__(self, folder: Path, config: ImageConfig, max_minutes: float | None):
        self._folder, self._config, self._start = folder, config, time.monotonic()
        self._until = None if max_minutes is None else self._start + 60.0 * max_minutes
        self._losses: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        self._losses.append(outputs["loss"].detach())
        step = trainer.global_step
        if step % self._config.save_every != 0 and step != self._config.n_steps:
            return
        loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if not np.isfinite(loss):
            raise ValueError(f"The loss is {loss} at step {step}; train with a smaller learning rate.")
        trainer.save_checkpoint(self._folder / _CHECKPOINT)
        with (self._folder / "history.csv").open("a", newline="") as file:
            csv.writer(file).writerow([step, f"{loss:.6g}", f"{time.monotonic() - self._start:.1f}"])
        if self._until is not None and time.monotonic() > self._until:
            trainer.should_stop = True
