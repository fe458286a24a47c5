"""What ``countsdiff impute`` was told, as values that its parts hand on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Layers:
    """Where counts and marks of missing entries are.

    Attributes
    ----------
    layer
        Layer with the counts; None for ``"counts"`` if there is one, else ``X``.
    missing_layer
        Boolean layer of the missing entries, or None.
    """

    layer: str | None = None
    missing_layer: str | None = None


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes
    ----------
    batch_key, labels_key
        Columns of ``obs`` with batch and label, or None.
    genes
        Number of variable genes to train on; None for all.
    steps
        Length of training; None for the default.
    resume
        Checkpoint to keep and to go on from, or None.
    seed, accelerator
        As for ``CountsDiffImputer.train``.
    quiet
        Whether to show no progress.
    """

    batch_key: str | None = None
    labels_key: str | None = None
    genes: int | None = None
    steps: int | None = None
    resume: Path | None = None
    seed: int = 0
    accelerator: str = "auto"
    quiet: bool = False


@dataclass(frozen=True)
class Answer:
    """What to write.

    Attributes
    ----------
    key_added
        Layer to write.
    options
        Arguments of ``CountsDiffImputer.impute``.
    """

    key_added: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Outputs:
    """Paths to write to.

    Attributes
    ----------
    out
        The data with the new layer.
    save_model
        Folder of the trained model, or None.
    report
        Page that says how far to trust it, or None.
    """

    out: Path
    save_model: Path | None = None
    report: Path | None = None


@dataclass(frozen=True)
class ClusterOptions:
    """Who imputes data on disk, and how many cells at a time.

    Attributes
    ----------
    workers
        Number of processes of this machine; None or 1 for this process.
    scheduler
        Address of a Dask cluster, or None.
    chunk_size
        Cells at a time.
    """

    workers: int | None
    scheduler: str | None
    chunk_size: int


def imputed_entries(record: dict[str, Any]) -> str:
    """How many entries were imputed, and of which kind, in words."""
    return f"{record['n_imputed']:,} {'zeros' if record['rewrite'] == 'zeros' else 'missing entries'}"
