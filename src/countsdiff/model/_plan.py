"""How the module is trained: AdamW on one cycle, a moving average, and a validation that always draws the same."""

from typing import cast

import lightning.pytorch as pl
import torch
from scvi.train import TrainingPlan
from torch import Tensor

from countsdiff.model._module import CountsDiffModule


class CountsDiffTrainingPlan(TrainingPlan):
    """Training plan counted in steps.

    Parameters
    ----------
    module
        A :class:`~countsdiff.model._module.CountsDiffModule`.
    n_steps
        Length of the learning-rate cycle.
    lr, weight_decay
        Peak learning rate and decoupled weight decay of AdamW.
    share_hidden
        Share of the observed entries to hide from every cell; None for one drawn per cell.
    seed
        Seed of everything drawn in training; validation draws the same numbers every time.
    """

    def __init__(
        self,
        module,
        *,
        n_steps: int,
        lr: float = 2e-3,
        weight_decay: float = 1.0,
        share_hidden: float | None = None,
        seed: int = 0,
    ):
        super().__init__(module, optimizer="AdamW", lr=lr, weight_decay=weight_decay, eps=1e-8)
        self.n_steps = n_steps
        self.share_hidden = share_hidden
        self.seed = seed
        self.cell_losses: list[Tensor] = []  # of the validation cells, by minibatch
        self._generator: torch.Generator | None = None

    def on_fit_start(self) -> None:
        """Start the random stream on the device of the module."""
        # ranks of a distributed run draw different noise for their different cells
        self._generator = torch.Generator(self.device).manual_seed(self.seed + self.global_rank)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One minibatch."""
        output = self.module.loss(batch, self._generator, self.share_hidden)
        self.log(
            "train_loss",
            output.loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=self.use_sync_dist,
        )
        return output.loss

    def on_train_batch_end(self, *args) -> None:
        """Let the averaged weights follow."""
        self.module.averaged.update(self.module.denoiser)

    def on_validation_epoch_start(self) -> None:
        """Forget the losses of the last validation."""
        self.cell_losses = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score the averaged weights at imputation, with folds fixed by the seed and the position of the batch."""
        generator = torch.Generator(self.device).manual_seed(self.seed + 1 + batch_idx)
        loss = self.module.imputation_loss(batch, generator, self.share_hidden)
        self.cell_losses.append(loss)
        self.log(
            "validation_loss",
            loss.mean(),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=len(loss),
            sync_dist=self.use_sync_dist,
        )

    def configure_optimizers(self) -> dict:
        """AdamW under one learning-rate cycle."""
        parameters = list(self.module.denoiser.parameters())
        # biases hold the level of a gene, which is to be learnt and not to be shrunk
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        # the fused step is twice as fast, but Lightning does not clip its gradients under mixed precision
        fused = self.trainer.precision == "32-true"
        optimizer = torch.optim.AdamW(groups, lr=self.lr, eps=self.eps, fused=fused)
        # a tenth, and a bit: a warm-up of exactly one step divides by zero in torch
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=self.n_steps, pct_start=0.101)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


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
        losses = torch.cat(cast(CountsDiffTrainingPlan, pl_module).cell_losses)
        worse = torch.zeros_like(losses) if self._best is None else losses - self._best
        # a single cell has no standard error: not finite, and so never "worse"
        if not worse.mean() > worse.std() / len(worse) ** 0.5:
            self._weights = {name: value.clone() for name, value in _averaged(pl_module).state_dict().items()}
        if self._best is None or worse.mean() < 0.0:
            self._best = losses

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        if self._weights:
            _averaged(pl_module).load_state_dict(self._weights)


def _averaged(plan: pl.LightningModule) -> torch.nn.Module:
    return cast(CountsDiffModule, plan.module).averaged
