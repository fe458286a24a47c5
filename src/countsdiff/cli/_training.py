"""Training as the command line shows it: one bar, and no notices that nobody can act on. Heavy: import in handlers."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import scvi
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def set_up() -> None:
    """Have this process train by itself, and keep third-party notices off the terminal.

    ``warnings.catch_warnings()`` around it brings the warnings back.
    """
    # what Lightning calls a job of SLURM whose tasks it must not count: they may be many, for the workers
    os.environ["SLURM_JOB_NAME"] = "interactive"
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.WARNING
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("ignore", module=r"(lightning|scvi|torch)\.")
    warnings.filterwarnings("ignore", "No entry of these cells is missing")  # the summary says that zeros were imputed


def bar(doing: str, what: str) -> Progress:
    """A bar on standard error that counts `what`."""
    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[dict[str, Any]]:
    """Yield the arguments of ``train`` that show a bar counting steps; none if `quiet`."""
    if quiet:
        yield {"enable_progress_bar": False}
        return
    with bar("Training", "steps") as progress:
        yield {"enable_progress_bar": False, "callbacks": [_StepBar(progress)]}


class _StepBar(pl.Callback):
    """Moves a bar with the training."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._progress.update(self._task, total=trainer.estimated_stepping_batches)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._progress.update(self._task, completed=trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # early stopping: as long as it was to be
        self._progress.update(self._task, total=trainer.global_step)
