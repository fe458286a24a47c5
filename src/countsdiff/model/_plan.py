"""How the module is trained: AdamW on one cycle, a moving average, and a validation that always draws the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from scvi.train import TrainingPlan
from torch import Tensor

from countsdiff.core.optim import adamw_cycle
from countsdiff.model._graph import GraphedLoss, can_be_captured
from countsdiff.model._module import CountsDiffModule
from countsdiff.model._noised import NoisedCells


class CountsDiffTrainingPlan(TrainingPlan):
    """Training plan counted in steps, with the same result on any number of devices.

    A step is one update of the weights. All devices read its cells and draw all of its random numbers, which costs
    little; then each takes its own cells through the network. Where gradients are accumulated, a step has several
    passes, which share its cells likewise. Only dropout is drawn by each device for itself.

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

    module: CountsDiffModule

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
        super().__init__(module, lr=lr, weight_decay=weight_decay)
        self.n_steps = n_steps
        self.share_hidden = share_hidden
        self.seed = seed
        self.cell_losses: list[Tensor] = []  # of the validation cells, by minibatch
        self._losses: list[Tensor] = []  # of the passes of this epoch
        self._sizes: list[int] = []  # of its steps, in cells
        self._cells: NoisedCells  # of the step
        self._graph: GraphedLoss | None = None
        self._generator = torch.Generator()
        self._streams: dict[str, Tensor] = {}  # states of the random streams in a checkpoint

    def on_fit_start(self) -> None:
        """Start the random streams, or go on with that of the checkpoint."""
        # torch's own orders cells and drops out: not with the numbers that hide and thin. It starts here, since on
        # several devices Lightning sets it to a seed of its own, if there is one (scvi.settings.seed)
        torch.manual_seed(int(np.random.SeedSequence(self.seed).generate_state(1)[0]))
        self._generator = torch.Generator(self.device).manual_seed(self.seed)
        if self._streams:
            self._generator.set_state(self._streams["noise"])

    def on_train_start(self) -> None:
        """Go on with torch's own streams, which order the cells and drop out."""
        if self._streams:
            torch.set_rng_state(self._streams["torch"])
        if "cuda" in self._streams:
            torch.cuda.set_rng_state(self._streams["cuda"], self.device)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One pass over this device's part of the cells of a step."""
        n_passes, n_devices = self.trainer.accumulate_grad_batches, self.trainer.world_size
        one_pass = batch_idx % n_passes
        if one_pass == 0:
            self._cells = self.module.noised(batch, self._generator, self.share_hidden)
            self._sizes.append(len(self._cells))
        n_cells, n_parts = len(self._cells), n_passes * n_devices
        part = self._cells[one_pass * n_devices + self.global_rank :: n_parts]
        with self._dropout(one_pass):
            # Lightning takes the mean of passes and devices, whose parts of the cells need not be equal
            loss = self._loss(part, n_cells / n_parts)
        self._losses.append(loss.detach())
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Let the averaged weights follow."""
        super().optimizer_step(*args, **kwargs)
        self.module.averaged.update(self.module.denoiser)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip under bfloat16 as under float32; Lightning refuses, for fused steps unscale the gradients of float16."""
        if self.trainer.precision != "bf16-mixed":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        Precision.clip_gradients(self.trainer.precision_plugin, optimizer, gradient_clip_val or 0.0, algorithm)

    def on_train_batch_end(self, *args: Any) -> None:
        """Log the loss, and stop if it has gone astray; once per epoch, since the losses of a GPU are waited for."""
        if not self.trainer.is_last_batch:
            return
        losses = self.trainer.strategy.reduce(torch.stack(self._losses), reduce_op="mean")
        losses = losses.view(len(self._sizes), -1).mean(1)
        sizes = torch.tensor(self._sizes, device=losses.device)
        self._losses, self._sizes = [], []
        astray = (~losses.isfinite()).nonzero()
        if len(astray) > 0:
            first = int(astray[0])
            self._give_up("loss", losses[first], self.global_step - len(losses) + first + 1)
        self.log(
            "train_loss",
            (losses * sizes).sum() / sizes.sum(),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=1,
            sync_dist=self.trainer.world_size > 1,
        )

    def on_train_end(self) -> None:
        """Give the memory of the graph back."""
        self._graph = None

    def on_validation_epoch_start(self) -> None:
        """Forget the losses of the last validation."""
        self.cell_losses = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score the averaged weights at imputation, with folds fixed by the seed and the position of the batch."""
        if batch_idx % self.trainer.world_size == self.global_rank:
            generator = torch.Generator(self.device).manual_seed(self.seed + 1 + batch_idx)
            self.cell_losses.append(self.module.imputation_loss(batch, generator, self.share_hidden))
        else:
            n_cells = len(next(iter(batch.values())))
            self.cell_losses.append(torch.zeros(n_cells, device=self.device))

    def on_validation_epoch_end(self) -> None:
        """Share the losses among the devices."""
        sizes = [len(losses) for losses in self.cell_losses]
        losses = self.trainer.strategy.reduce(torch.cat(self.cell_losses), reduce_op="sum")
        self.cell_losses = list(losses.split(sizes))
        if not losses.isfinite().all():
            self._give_up("validation loss", losses.mean(), self.global_step)
        for some in self.cell_losses:
            self.log(
                "validation_loss",
                some.mean(),
                on_epoch=True,
                prog_bar=True,
                batch_size=len(some),
                sync_dist=self.trainer.world_size > 1,
            )

    def configure_optimizers(self) -> dict:
        """AdamW under one learning-rate cycle."""
        fused = self.trainer.precision != "16-mixed"  # where a fused step unscales what was clipped too early
        parameters = self.module.denoiser.parameters()
        optimizer, cycle = adamw_cycle(parameters, self.lr, self.weight_decay, self.n_steps, fused=fused)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the states of the random streams; they are the same on all devices."""
        checkpoint["streams"] = {"noise": self._generator.get_state(), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            checkpoint["streams"]["cuda"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them out again."""
        self._streams = checkpoint["streams"]

    def _loss(self, cells: NoisedCells, n_cells: float) -> Tensor:
        """Loss of one pass; on a GPU captured from the first one, for all with as many cells."""
        # gradients of several passes cannot be added up in the memory that a graph writes them into
        one_pass = self.trainer.accumulate_grad_batches == self.trainer.world_size == 1
        if one_pass and can_be_captured(self.module):
            self._graph = self._graph or GraphedLoss(self.module, cells)
            if len(cells) == self._graph.n_cells:
                return self._graph(cells) / n_cells
        return self.module.loss(cells, n_cells)

    @contextmanager
    def _dropout(self, one_pass: int) -> Iterator[None]:
        """Give dropout on every one of several devices a stream of its own, and leave alone torch's, which they share.

        Of one device dropout draws from torch's stream.
        """
        if self.trainer.world_size == 1:
            yield
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            keys = [self.seed, self.global_step, one_pass, self.global_rank]
            torch.manual_seed(int(np.random.SeedSequence(keys).generate_state(1)[0]))
            yield

    def _give_up(self, name: str, loss: Tensor, step: int) -> NoReturn:
        raise ValueError(
            f"The {name} is {float(loss)} at step {step}: train with a smaller lr than {self.lr:g}, and if that does "
            "not help, look for extreme counts. The model is what it was before training."
        )
