"""``countsdiff impute`` on data that stay on disk. Heavy: import in handlers."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData

from countsdiff import distributed
from countsdiff.apply import written
from countsdiff.cli._io import InputError, blame, say
from countsdiff.cli._job import fit, load
from countsdiff.cli._probe import probe
from countsdiff.cli._settings import Answer, ClusterOptions, Layers, Training
from countsdiff.cli._training import bar, set_up
from countsdiff.files import unfinished
from countsdiff.layers import check_not_read, default_layer
from countsdiff.model.missing import RULES
from countsdiff.store import open_store
from countsdiff.store.whole import check_target

if TYPE_CHECKING:
    from distributed import Client


def impute(
    source: Path,
    out: Path,
    model_dir: Path | None,
    save_model: Path | None,
    layers: Layers,
    training: Training,
    answer: Answer,
    cluster: ClusterOptions,
) -> tuple[AnnData, dict[str, Any], int]:
    """Train unless there is a model, impute in chunks, and write.

    Returns
    -------
    tuple
        The data written, on disk; the record of what was done; the number of genes imputed.
    """
    set_up()
    if layers.missing_layer in RULES:
        raise InputError(
            f"--missing-layer names a boolean layer, and {layers.missing_layer!r} is the name of a rule; rename it."
        )
    if model_dir is None and save_model is not None and save_model.exists():
        model_dir = save_model  # its training was over when the run was cut short
        if not training.quiet:
            say(f"Going on with the model in {model_dir}.")
    model = None if model_dir is None else load(model_dir, training.accelerator)
    with blame(source):
        if source.is_file():
            probe(source)
        check_target(out, source, *(path for path in (model_dir, save_model) if path is not None))
        if model_dir is None or model is None:
            if save_model is None:
                raise InputError("Data on disk need a model on disk: name a folder with --model or --save-model.")
            if training.genes is not None:
                raise InputError("--genes needs all data in memory: leave it out, or leave out --workers.")
            adata = open_store(source)
            read = layers.layer or default_layer(adata), layers.missing_layer
            check_not_read(written(answer.key_added, answer.options), read)
            model = fit(adata, layers, training)
            unfinished(out).mkdir(exist_ok=True)  # from here on the same command goes on with this model
            model.save(str(save_model))
            model_dir = save_model
        with _cluster(cluster) as client, _chunk_bar(training.quiet) as callback:
            distributed.impute(
                source,
                model_dir,
                client,
                out=out,
                layer=layers.layer,
                missing=layers.missing_layer,
                key_added=answer.key_added,
                chunk_size=cluster.chunk_size,
                callback=callback,
                accelerator=training.accelerator,
                **answer.options,
            )
    adata = open_store(out)
    return adata, adata.uns["countsdiff"][answer.key_added], len(model.get_var_names())


@contextmanager
def _cluster(cluster: ClusterOptions) -> "Iterator[Client | None]":
    """A cluster of this machine's cores, or of others; None for this process alone."""
    workers, scheduler = cluster.workers, cluster.scheduler
    if scheduler is None and (workers or 1) == 1:
        yield None
        return
    if scheduler is not None and workers is not None:
        raise InputError("Give --workers for this machine or --scheduler for a cluster that has its own; not both.")
    try:
        from distributed import Client
    except ImportError:
        raise InputError("Several workers need Dask: pip install 'countsdiff[distributed]'.") from None
    # what Dask has to say of workers that end is no news, here and in them; what goes wrong comes as an exception
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
    try:
        client = Client(scheduler, timeout=30) if workers is None else distributed.local_client(workers)
    except (OSError, ValueError) as error:
        if workers is not None:
            raise InputError(f"--workers {workers}: they cannot be started ({error}).") from error
        raise InputError(f"--scheduler {scheduler}: no Dask scheduler answers there ({error}).") from error
    with client:
        yield client


@contextmanager
def _chunk_bar(quiet: bool) -> Iterator[Any]:
    """A callback that shows a bar counting chunks; None if `quiet`."""
    if quiet:
        yield None
        return
    with bar("Imputing", "chunks") as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
