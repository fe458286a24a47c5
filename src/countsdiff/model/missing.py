"""Which entries to impute, and what each of them is to the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.counts import CellReader, by_position, check_boolean
from countsdiff.layers import named_layers

RULES = ("zeros", "all", "label_zeros")
Matrix: TypeAlias = NDArray[Any] | pd.DataFrame | sparse.spmatrix | sparse.sparray
Missing: TypeAlias = str | Matrix | Mapping[str, Matrix] | None  # a rule, a layer, or entries; of MuData by modality


Rewrite = Literal["missing", "zeros", "all"]


@dataclass(frozen=True)
class Task:
    """What the model is to do with the entries of every cell.

    Attributes
    ----------
    hidden
        Matrix of entries to impute without looking at them (beyond those missing in the data), or ``None``.
    evidence
        Whether observed entries are evidence about themselves: they are then re-estimated rather than taken as known.
    rewrite
        Which entries get the model's answer: those missing, also the zeros, or all of them.
    adds
        Whether the answer adds to the observed counts, which then stay, instead of standing for a fresh look.
    """

    hidden: object | None
    evidence: bool
    rewrite: Rewrite
    adds: bool = False

    def rewritten(self, counts: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Entries of a block of rows that get the model's answer."""
        if self.rewrite == "all":
            return np.ones_like(missing)
        return missing | (counts == 0) if self.rewrite == "zeros" else missing

    def provenance(self) -> dict:
        """Settings as plain values, for the record."""
        return {"rewrite": self.rewrite, "evidence": self.evidence, "adds": self.adds}


@dataclass(frozen=True)
class LabelZeros:
    """Zeros of genes that are seen somewhere in cells of the same label, read like a boolean matrix.

    Attributes
    ----------
    reader
        Counts.
    labels
        Code of each cell's label, shape ``(n_obs,)``.
    detected
        Whether any cell of a label has a count of a gene, shape ``(n_labels, n_vars)``, in the reader's order of genes.
    """

    reader: CellReader
    labels: NDArray[np.intp]
    detected: NDArray[np.bool_]

    @classmethod
    def find(cls, reader: CellReader, labels: NDArray[np.intp]) -> "LabelZeros":
        """Go through all cells once."""
        detected = np.zeros((labels.max() + 1, reader.counts.shape[1]), dtype=bool)
        for rows in reader.chunks():
            seen, of = reader(rows)[0] > 0, labels[rows]
            for label in np.unique(of):  # logical_or.at is ten times as slow
                detected[label] |= seen[of == label].any(0)
        return cls(reader, labels, detected)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and genes."""
        return self.reader.n_obs, self.detected.shape[1]

    def __getitem__(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Rows of the matrix, genes in the order of the data."""
        counts, missing = self.reader(rows)
        return self.reader.restore((counts == 0) & ~missing & self.detected[self.labels[rows]])


MISSING = Task(hidden=None, evidence=False, rewrite="missing")
ZEROS = Task(hidden=None, evidence=True, rewrite="zeros")
GENERATE = Task(hidden=None, evidence=False, rewrite="all")
DENOISE = Task(hidden=None, evidence=True, rewrite="all")
DEEPEN = Task(hidden=None, evidence=True, rewrite="all", adds=True)


def resolve_missing(
    missing: Missing, adata: AnnData | MuData, reader: CellReader, labels: NDArray[np.intp] | None = None
) -> Task:
    """Turn the `missing` argument of ``impute`` into a task.

    Parameters
    ----------
    missing
        ``None`` (entries missing in the data if there are any, else the zeros), ``"zeros"``, ``"all"``,
        ``"label_zeros"``, the name of a layer, or a boolean array or sparse matrix of the shape of `adata`; a data
        frame goes by its names.
    adata
        Data to impute.
    reader
        Its counts.
    labels
        Code of each cell's label, shape ``(n_obs,)``; ``None`` if no labels are registered.

    Raises
    ------
    ValueError
        If the matrix has another shape than `adata` or holds anything but true and false, or ``"label_zeros"`` is asked
        of data without labels.
    KeyError
        If there is no layer of that name.
    """
    if missing is None:
        return MISSING if reader.any_missing() else ZEROS
    if isinstance(missing, str):
        if missing == "zeros":
            return ZEROS
        if missing == "all":
            return DENOISE
        if missing == "label_zeros":
            if labels is None:
                raise ValueError("missing='label_zeros' goes by labels; register them: setup_anndata(labels_key=...).")
            return Task(LabelZeros.find(reader, labels), evidence=False, rewrite="missing")
        if isinstance(adata, MuData):
            raise ValueError(f"missing={missing!r} is no rule; give matrices by modality, missing={{'rna': matrix}}.")
        if missing not in adata.layers:
            raise KeyError(
                f"missing={missing!r} is neither 'zeros', 'all', 'label_zeros' nor a layer; adata.layers has "
                f"{list(named_layers(adata))}."
            )
    hidden = by_position(missing, adata)
    if hidden.shape != reader.counts.shape:
        raise ValueError(
            f"missing has shape {hidden.shape}, the data {reader.counts.shape}: it needs one entry per cell and gene, "
            "in the same order."
        )
    check_boolean(hidden)
    return Task(hidden, evidence=False, rewrite="missing")
