"""What watches over a training: the best weights are kept, and a checkpoint is written now and then."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor

from countsdiff.model._module import CountsDiffModule
from countsdiff.model._plan import CountsDiffTrainingPlan

_SECONDS_BETWEEN = 60.0  # checkpoints


class KeepBest(pl.Callback):
    """Keeps the averaged weights of the last validation that was no worse than the best, and puts them back at the end.

    No worse means within one standard error of the difference, cell by cell: validation sets of small data are small,
    while the end of a learning-rate cycle is better by far than their noise shows.
    """

    def __init__(self) -> None:
        self._best: Tensor | None = None
        self._weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the weights unless they are worse than the best so far."""
        if trainer.sanity_checking:
            return  # a few minibatches, which others cannot be compared with
        losses = torch.cat(cast(CountsDiffTrainingPlan, pl_module).cell_losses)
        worse = torch.zeros_like(losses) if self._best is None else losses - self._best.to(losses)
        # a single cell has no standard error: not finite, and so never "worse"
        if not worse.mean() > worse.std() / len(worse) ** 0.5:
            self._remember(pl_module)
        if self._best is None or worse.mean() < 0.0:
            self._best = losses

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        if self._best is not None:
            _module(pl_module).averaged.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to know."""
        return {"best": self._best, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._best, self._weights = state_dict["best"], state_dict["weights"]

    def _remember(self, plan: pl.LightningModule) -> None:
        self._weights = {name: value.clone() for name, value in _module(plan).averaged.state_dict().items()}


class Checkpoints(pl.Callback):
    """Writes a checkpoint at the first validation after every minute, and at the end.

    It belongs to the end of an epoch (a hundred steps at most), where all that training goes on from is at rest.

    Parameters
    ----------
    file
        Where to.
    training
        What is trained, to be found in the checkpoint as ``"training"``.
    """

    def __init__(self, file: Path, training: Mapping[str, Any]):
        self._file, self._training = file, training
        self._written = time.monotonic()
        self._history: dict[str, list[list[float]]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the history of the checkpoint."""
        for logger in trainer.loggers:
            for name, rows in self._history.items():
                for epoch, value in rows:
                    logger.log_metrics({name: value, "epoch": epoch}, step=None)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave alone a training that was stopped early."""
        stopping = trainer.early_stopping_callback
        trainer.should_stop = stopping is not None and stopping.wait_count >= stopping.patience

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint if it is time to."""
        if not trainer.is_last_batch:
            return  # somebody stopped in the midst of an epoch, where nobody could go on
        epoch = trainer.current_epoch + 1
        last = trainer.should_stop or epoch == trainer.max_epochs
        validated = epoch % cast(int, trainer.check_val_every_n_epoch) == 0
        due = validated and time.monotonic() - self._written >= _SECONDS_BETWEEN
        # the clocks of several devices differ, and all of them have to take part
        if trainer.strategy.broadcast(last or due):
            trainer.save_checkpoint(self._file)
            self._written = time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what is trained, and its history."""
        # the loss of this epoch is about to be logged; all devices together have it, but the first alone logs
        loss = float(trainer.callback_metrics["train_loss"])
        logged = getattr(trainer.logger, "history", {}) if trainer.is_global_zero else {}
        history = {
            name: [[int(epoch), float(value)] for epoch, value in frame[name].items()] for name, frame in logged.items()
        }
        history.setdefault("train_loss", []).append([trainer.current_epoch, loss])
        checkpoint |= {"training": self._training, "history": history}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the history out again."""
        self._history = checkpoint["history"]


def _module(plan: pl.LightningModule) -> CountsDiffModule:
    return cast(CountsDiffModule, plan.module)
