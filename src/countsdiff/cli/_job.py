"""What ``countsdiff impute`` does with data in memory. Heavy: import in handlers."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from countsdiff import CountsDiffImputer, pp
from countsdiff.apply import Job, apply, load_model, with_missing_as, written
from countsdiff.cli._io import blame, write
from countsdiff.cli._settings import Answer, Layers, Outputs, Training, imputed_entries
from countsdiff.cli._training import progress_bar, set_up
from countsdiff.counts import CellReader, as_row_access, check_counts
from countsdiff.layers import borrow, check_not_read, default_layer, get_layer
from countsdiff.model.hold_out import NOT_TRAINED_ON, hold_out


def impute(
    adata: AnnData,
    source: Path,
    model_dir: Path | None,
    layers: Layers,
    training: Training,
    answer: Answer,
    outputs: Outputs,
) -> tuple[dict[str, Any], int]:
    """Train unless there is a model, impute, and write.

    Returns
    -------
    tuple
        The record of what was done; the number of genes imputed.
    """
    set_up()
    start = time.perf_counter()
    loaded = None if model_dir is None else load(model_dir, training.accelerator)
    with blame(source):
        if loaded is None:
            names = written(answer.key_added, answer.options)
            job = train(adata, layers, training, names, for_report=outputs.report is not None)
        else:
            job = apply(loaded, adata, layer=layers.layer, missing_layer=layers.missing_layer)
        missing = None if layers.missing_layer is None else get_layer(job.work, layers.missing_layer)
        trained = time.perf_counter()
        record = job.impute(answer.key_added, missing=missing, **answer.options)
    with blame(outputs.out):
        write(adata, outputs.out)
    if outputs.save_model is not None:
        with blame(outputs.save_model):
            job.model.save(str(outputs.save_model))
    if outputs.report is not None:
        what = f"{imputed_entries(record)} ({answer.options['output']})"
        n_genes = "all" if training.genes is None else f"{len(job.columns):,} of {adata.n_vars:,}, chosen by all counts"
        details = {
            "file": str(source),
            "imputed": f"{what}, the entries held out being known again",
            "genes": n_genes,
            "seed of training": str(training.seed),
            "training took": f"{trained - start:.0f} s",
        }
        with blame(outputs.report):
            job.model.report(outputs.report, held_out=job.held_out, details=details, seed=training.seed)
    return record, len(job.columns)


def train(adata: AnnData, layers: Layers, training: Training, names: list[str], *, for_report: bool) -> Job:
    """Train a model on `adata`, or on its most variable genes; with some entries held out `for_report`.

    `names` are the layers that will be written.
    """
    layers = replace(layers, layer=layers.layer or default_layer(adata))
    check_not_read(names, (layers.layer, layers.missing_layer))  # not after minutes of training
    columns = np.arange(adata.n_vars)
    if training.genes is not None:
        check_counts(adata, layers.layer)
        observed = AnnData(with_missing_as(0.0, adata, layers.layer, layers.missing_layer))
        columns = np.flatnonzero(pp.highly_variable(observed, training.genes))
    work = borrow(adata if len(columns) == adata.n_vars else adata[:, columns].copy())
    seen, hidden, held_out = work, layers.missing_layer, None
    if for_report:
        seen, hidden, held_out = _hold_out(work, layers.layer, layers.missing_layer, training.seed)
    model = fit(seen, replace(layers, missing_layer=hidden), training)
    return Job(model, adata, work, columns, layers.layer, layers.missing_layer, held_out)


def fit(adata: AnnData, layers: Layers, training: Training) -> CountsDiffImputer:
    """Train a model on all genes of `adata`, in memory or on disk, under a progress bar."""
    CountsDiffImputer.setup_anndata(
        adata,
        layer=layers.layer or default_layer(adata),
        missing_layer=layers.missing_layer,
        batch_key=training.batch_key,
        labels_key=training.labels_key,
    )
    model = CountsDiffImputer(adata, seed=training.seed)
    with progress_bar(quiet=training.quiet) as arguments:
        model.train(
            training.steps,
            seed=training.seed,
            accelerator=training.accelerator,
            resume=training.resume,
            **arguments,
        )
    return model


def _hold_out(
    work: AnnData, layer: str | None, missing_layer: str | None, seed: int
) -> tuple[AnnData, str, sparse.csr_matrix]:
    """Data that share the matrices of `work` and mark more entries as missing, the layer of the marks, the new ones."""
    check_counts(work, layer)
    missing = None if missing_layer is None else sparse.csr_matrix(get_layer(work, missing_layer), dtype=bool)
    held_out = hold_out(CellReader(as_row_access(get_layer(work, layer)), missing), seed)
    seen = borrow(work)
    name = missing_layer or NOT_TRAINED_ON
    seen.layers[name] = held_out if missing is None else missing + held_out
    return seen, name, held_out


def load(folder: Path, accelerator: str) -> CountsDiffImputer:
    """Load a trained model."""
    with blame():
        return load_model(folder, accelerator)
