"""Training: how long, on what, validated how, and where it goes on."""

import logging
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from scvi.model._utils import parse_device_args
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train import TrainRunner

from countsdiff.arguments import check_seed, check_whole, plain
from countsdiff.checkpoint import stopping_as_told
from countsdiff.counts import check_counts
from countsdiff.model._base import CellModel
from countsdiff.model._calibration import calibrate
from countsdiff.model._callbacks import KeepBest
from countsdiff.model._loading import on_disk
from countsdiff.model._modalities import join_tables
from countsdiff.model._plan import CountsDiffTrainingPlan
from countsdiff.model._resume import checkpointing, fingerprint
from countsdiff.model._steps import StepSplitter

_VALIDATE_EVERY = 100  # steps
_PATIENCE = 20  # validations, or half of them
_MOST_VALIDATED = 2_000  # cells
_REPLACED = {  # arguments of scvi-tools' own train
    "max_epochs": "say how long by max_steps, updates of the weights.",
    "train_size": "say how much to validate on by validation_size.",
    "plan_kwargs": "lr, weight_decay and share_hidden are arguments of their own.",
    "datasplitter_kwargs": "validation_size and seed say which cells are which.",
}


class TrainableModel(UnsupervisedTrainingMixin, CellModel):
    """Training of the denoiser."""

    history_: Any
    _training_plan_cls = CountsDiffTrainingPlan
    _data_splitter_cls = StepSplitter

    def train(
        self,
        max_steps: int | None = None,
        *,
        batch_size: int = 128,
        lr: float | None = None,
        weight_decay: float | None = None,
        share_hidden: float | None = None,
        early_stopping: bool = True,
        validation_size: float = 0.05,
        seed: int = 0,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        resume: str | Path | None = None,
        **trainer_kwargs,
    ) -> None:
        """Train the denoiser; the weights that predicted the validation cells best are kept.

        A model that was trained already is trained on, from where it was.

        Parameters
        ----------
        max_steps
            Length of training in steps, updates of the weights. Default: seven tenths of the number of cells, between
            1,000 and 20,000. It is rounded up to whole passes over the data, or to hundreds where a pass is longer.
        batch_size
            Cells per minibatch, on all devices together, so that the result does not depend on their number. With
            ``accumulate_grad_batches=k`` a step has k minibatches.
        lr, weight_decay
            Peak learning rate and decoupled weight decay of AdamW. Default: 0.002, and (3,300 / number of cells)³, at
            most 6, as what fits ten thousand cells well overfits one thousand; 0.0005 and 0 for a model that starts
            from a reference, see :meth:`load_query_data`.
        share_hidden
            Share of the observed entries to hide from every cell. Default: one drawn per cell, uniformly (and all of
            them in a tenth of the cells), which trains for every task. 1 trains an unconditional model, the paper's:
            best for generating cells, and what ``method="repaint"`` was made for.
        early_stopping
            Stop when half of all validations in a row, and at least twenty, brought no improvement. They are a hundred
            steps apart.
        validation_size
            Share of the cells to validate on, at most 2,000 of them. The weights that are kept are the last ones that
            did no worse than the best, within one standard error. 0 switches validation off.
        seed
            Seed of the split, the order of the cells and everything drawn.
        accelerator, devices
            As for :class:`lightning.pytorch.Trainer`. ``devices=2`` starts the program a second time, see
            :doc:`/guide/training`.
        resume
            File for a checkpoint, written at the first validation after every minute and at the end. If there is one
            already, training goes on from it: the same call, in a new process, ends with the same weights and
            history as if nothing had happened, to the last bit.
        **trainer_kwargs
            Further arguments for :class:`scvi.train.Trainer`, for example ``precision="bf16-mixed"`` on a GPU,
            ``accumulate_grad_batches``, ``callbacks`` (Lightning's ``ModelCheckpoint`` wants
            ``enable_checkpointing=True``, too) or ``enable_progress_bar=False``.

        Raises
        ------
        ValueError
            If a setting is out of range, the loss is not a number, or the checkpoint is of other data or settings.

        Notes
        -----
        If training fails or is interrupted, the model is what it was before.
        """
        seed = check_seed(seed)
        max_steps, batch_size, lr, weight_decay, share_hidden, validation_size = map(
            plain, (max_steps, batch_size, lr, weight_decay, share_hidden, validation_size)
        )
        trainer_kwargs = {name: plain(value) for name, value in trainer_kwargs.items()}
        _check_arguments(max_steps, batch_size, lr, weight_decay, share_hidden, validation_size, trainer_kwargs)
        self._check_own_data()
        n_obs = self.adata.n_obs
        if lr is None:
            lr = 5e-4 if self.starts_from_reference_ else 2e-3
        if weight_decay is None:
            weight_decay = 0.0 if self.starts_from_reference_ else min((3_300 / n_obs) ** 3, 6.0)
        if max_steps is None:
            max_steps = min(max(7 * n_obs // 10, 1_000), 20_000)
        training, validation = _split(n_obs, validation_size, seed)
        n_passes = trainer_kwargs.get("accumulate_grad_batches", 1)
        check_whole(1, accumulate_grad_batches=n_passes)
        # an "epoch" is cut at a hundred steps, so that large data are validated as often as small
        steps_per_epoch = min(math.ceil(len(training) / (batch_size * n_passes)), _VALIDATE_EVERY, max_steps)
        max_epochs = math.ceil(max_steps / steps_per_epoch)
        plan = {
            "n_steps": max_epochs * steps_per_epoch,
            "lr": lr,
            "weight_decay": weight_decay,
            "share_hidden": share_hidden,
            "seed": seed,
        }
        settings = _trainer_settings(
            steps_per_epoch, max_epochs, n_passes, early_stopping if len(validation) > 0 else None
        )
        settings |= trainer_kwargs | {"callbacks": [*_listed(trainer_kwargs.get("callbacks")), KeepBest()]}
        if settings.get("strategy") == "ddp":
            del settings["strategy"]  # Lightning's choice anyway; by that name scvi-tools switches early stopping off
        if resume is not None:
            cells = {"batch_size": batch_size, "accumulate_grad_batches": n_passes, "validation_size": validation_size}
            _, _, device = parse_device_args(accelerator, devices, return_device="torch")
            how = {
                "early_stopping": early_stopping,
                "kind of device": device.type,  # on another, random numbers would be others
                "precision": settings.get("precision", "32-true"),
                "gradient_clip_val": settings["gradient_clip_val"],
            }
            settings |= checkpointing(Path(resume), fingerprint(self) | plan | cells | how, settings)
        random = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
        with random, _without_notices(), stopping_as_told(), self._or_as_before():
            # scvi-tools adds to the history of a model that was trained; a query has none, nor what logged elsewhere
            self.is_trained_ = self.is_trained_ and bool(self.history_)
            self.module.set_calibration(calibrated=False)
            super().train(
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                batch_size=batch_size,
                datasplitter_kwargs={
                    "external_indexing": [training, validation, np.array([], dtype=int)],
                    "n_passes": n_passes,
                },
                plan_kwargs=plan,
                **settings,
            )
            strategy = self.trainer.strategy
            self.to_device(strategy.root_device)  # scvi-tools puts the models of all devices on the first
            self.history_ = strategy.broadcast(self.history_)  # which alone has it
            known, held_out = self._spread(training), self._spread(validation)
            calibrate(self.module, known, held_out, seed, share_hidden)
            self.share_hidden_, self.learned_from_data_ = share_hidden, True

    def _check_own_data(self) -> None:
        """Check the data that the model was made with, which may have been changed since."""
        if self.adata is None:
            raise ValueError("The model was loaded without data; give load(..., adata) the data to train on.")
        modalities = self._modalities()
        if modalities is not None:
            join_tables(self.adata, modalities, self._setup_args()["layers"])
        elif list(self.adata.var_names) != list(self.get_var_names()):
            raise ValueError("The genes of model.adata are not those it was made with; make a new model of these data.")
        elif not on_disk(self.adata_manager):
            check_counts(self.adata, self._layer())
        self._code_covariates(self.adata)

    @contextmanager
    def _or_as_before(self) -> Iterator[None]:
        """Put the model back into its present state if anything fails, or somebody interrupts it."""
        was_trained, history = self.is_trained_, self.history_ and dict(self.history_)  # which scvi-tools adds to
        before = {name: value.clone() for name, value in self.module.state_dict().items()}
        try:
            yield
        except BaseException:
            self.is_trained_, self.history_ = was_trained, history
            self.module.load_state_dict(before)
            self.module.eval()
            raise


def _check_arguments(
    max_steps: int | None,
    batch_size: int,
    lr: float | None,
    weight_decay: float | None,
    share_hidden: float | None,
    validation_size: float,
    trainer_kwargs: Mapping[str, Any],
) -> None:
    check_whole(1, batch_size=batch_size, **({} if max_steps is None else {"max_steps": max_steps}))
    if lr is not None and not lr > 0.0:
        raise ValueError(f"lr, the learning rate, is positive; got {lr}.")
    if weight_decay is not None and not weight_decay >= 0.0:
        raise ValueError(f"weight_decay is not negative; got {weight_decay}.")
    if share_hidden is not None and not 0.0 < share_hidden <= 1.0:
        raise ValueError(f"share_hidden is a share of the entries in (0, 1]; got {share_hidden}.")
    if not 0.0 <= validation_size < 1.0:
        raise ValueError(f"validation_size is a share of the cells in [0, 1); got {validation_size}.")
    if taken := sorted(set(trainer_kwargs) & set(_REPLACED)):
        raise TypeError(f"train() has no argument {taken[0]!r}; {_REPLACED[taken[0]]}")


def _split(n_obs: int, validation_size: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cells to train on, and to validate on."""
    shuffled = np.random.default_rng(seed).permutation(n_obs)
    n_validation = min(int(validation_size * n_obs), _MOST_VALIDATED)
    return np.sort(shuffled[n_validation:]), np.sort(shuffled[:n_validation])


def _listed(callbacks: Any) -> list[Any]:
    """Callbacks as a list; Lightning takes one, several or None."""
    if callbacks is None:
        return []
    return [callbacks] if isinstance(callbacks, Callback) else list(callbacks)


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keep to themselves what Lightning and scvi-tools say of their own affairs, and nobody can act upon."""

    def is_news(record: logging.LogRecord) -> bool:
        message = record.getMessage()  # "epochs" are pieces of a training, and their end is no news
        return "litlogger" not in message and not message.startswith(("`Trainer.fit` stopped", "TPU available"))

    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addFilter(is_news)
    runner: Any = sys.modules[TrainRunner.__module__]
    runner.print = lambda *_: None  # scvi-tools announces whatever is raised as a "NameError", before it comes
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found .* in eval mode")  # the averaged weights stay in it
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
            yield
    finally:
        log.removeFilter(is_news)
        vars(runner).pop("print", None)  # a training within this one may be over already


def _trainer_settings(
    steps_per_epoch: int, max_epochs: int, n_passes: int, early_stopping: bool | None
) -> dict[str, Any]:
    """Settings of scvi-tools' trainer; `early_stopping` is None where there is no validation."""
    validate_every = max(1, round(_VALIDATE_EVERY / steps_per_epoch))
    settings: dict[str, Any] = {
        "gradient_clip_val": 1.0,
        "limit_train_batches": steps_per_epoch * n_passes,
        "check_val_every_n_epoch": validate_every,
        "log_every_n_steps": min(10, steps_per_epoch * n_passes),
        "use_distributed_sampler": False,  # devices share the cells of a step after they were read
    }
    if early_stopping is None:
        return settings | {"limit_val_batches": 0}
    return settings | {
        "early_stopping": early_stopping,
        "early_stopping_monitor": "validation_loss",
        # losses stand still while the learning rate is high, and fall again with it
        "early_stopping_patience": max(_PATIENCE, max_epochs // validate_every // 2),
    }
