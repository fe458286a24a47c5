import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from countsdiff.arguments import check_whole
from countsdiff.distributed._chunk import Matrices, answer, close_store, is_answered, part, read_answer
from countsdiff.distributed._plan import Plan
from countsdiff.files import atomic, check_same_format, format_of, hidden_prefix, unfinished
from countsdiff.layers import check_key
from countsdiff.store import open_store
from countsdiff.store.layers import add_layers, add_record
from countsdiff.store.whole import check_target, copy_store, replace_store, store_size

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger("countsdiff")


def impute(
    store: str | Path,
    model_dir: str | Path,
    client: "Client | None" = None,
    *,
    out: str | Path | None = None,
    layer: str | None = None,
    missing: str | None = None,
    key_added: str = "imputed",
    chunk_size: int = 8192,
    callback: Callable[[int, int], None] | None = None,
    accelerator: str = "auto",
    **options: Any,
) -> Path:
    """Impute an .h5ad file or a zarr store chunk by chunk, with a saved model.

    Memory is bounded by the chunk, not by the data. The result is that of :meth:`countsdiff.CountsDiffImputer.impute`,
    whatever the chunks and the workers. A run that was interrupted resumes when it is started again.

    Parameters
    ----------
    store
        Raw counts, ``.h5ad`` or a zarr folder; it is read, never written. Matrices are dense or CSR; one that is stored
        by columns (CSC) is in the memory of every process as a whole.
    model_dir
        Folder that :meth:`countsdiff.CountsDiffImputer.save` wrote. Genes are matched by name; those that the model
        does not know keep their counts.
    client
        ``dask.distributed.Client`` of the cluster to work on, whose workers see `store`, `model_dir` and `out` under
        the same paths: :func:`local_client` for the cores of this machine. None: this process does all the work.
    out
        Store to write, of the kind of `store`: a copy of it with the new layers. Default: beside `store`,
        ``name.imputed.h5ad``. What is there already is replaced at the end. Unfinished work is kept in the folder
        ``{out}.parts``.
    layer
        Layer with the counts. Default: the one the model was trained on if it is there, else ``"counts"``, else ``X``.
    missing
        ``"zeros"``, ``"all"``, or the name of a boolean layer, as for :meth:`countsdiff.CountsDiffImputer.impute`.
        Default: the entries missing in the data or, if there are none in all of them, the zeros.
    key_added
        Layer to write.
    chunk_size
        Cells per chunk.
    callback
        Called with the number of chunks done, and of all chunks.
    accelerator
        What to compute on, as for :meth:`countsdiff.CountsDiffImputer.load`.
    **options
        Further arguments of :meth:`countsdiff.CountsDiffImputer.impute`: ``output``, ``n_samples``, ``n_steps``,
        ``guidance_scale``, ``interval``, ``seed``, …

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ValueError
        If an argument, the data or the model do not fit; the message says which and what to do. Also if another process
        is writing `out`, or unfinished work of other settings is in its way.
    OSError
        If the disk has no room for the result; the message says how much is needed.

    Examples
    --------
    >>> countsdiff.distributed.impute("atlas.h5ad", "reference_model", missing="zeros", chunk_size=1024)
    PosixPath('atlas.imputed.h5ad')
    """
    store, model_dir = Path(store), Path(model_dir)
    out = store.with_name(f"{store.stem}.imputed{format_of(store)}") if out is None else Path(out)
    check_same_format(out, store)
    check_target(out, store, model_dir)
    check_whole(1, chunk_size=chunk_size)
    if of_whole := sorted({"adata", "indices", "inplace"} & set(options)):
        raise TypeError(
            f"distributed.impute has no argument {of_whole[0]!r}: it imputes all cells of a store, into a file."
        )
    check_key(key_added)
    if client is not None and not hasattr(client, "submit"):
        raise TypeError(f"client is a dask.distributed.Client, such as local_client(2); got {client!r}.")
    parts = unfinished(out)
    place = parts.with_suffix("")
    try:
        plan = Plan.make(store, model_dir, layer, missing, key_added, chunk_size, accelerator, options)
        _check_room(place, plan.n_bytes, store_size(store), store_size(parts) if parts.is_dir() else 0)
        parts.mkdir(exist_ok=True)
        with filelock.FileLock(parts / "lock", blocking=False):
            _claim(parts, plan)
            answers = parts / plan.name
            answers.mkdir(exist_ok=True)
            there = {path.name for path in answers.iterdir()}  # NFS would remember for a while what it did not find
            done = {
                start for start in plan.starts if part(answers, start).name in there and is_answered(answers, start)
            }
            todo = [(start, min(start + plan.chunk_size, plan.n_obs)) for start in plan.starts if start not in done]
            with _working(client, partial(answer, answers, plan.rows), todo) as working:
                _put_together(_in_order(plan.starts, done, working, callback), answers, plan, store, place)
            # before others may claim it
            over = parts.rename(place.with_name(f"{hidden_prefix(place.name)}{uuid.uuid4().hex}.tmp"))
        # not within the lock: on NFS its file is there as long as it is open. What is left does no harm
        shutil.rmtree(over, ignore_errors=True)
    except filelock.Timeout:
        raise ValueError(
            f"{out}: another process is writing this output; wait for it, or choose another name."
        ) from None
    finally:
        close_store()
        if client is not None:
            with suppress(Exception):  # of a cluster that is gone, which would hide why
                client.run(close_store, on_error="ignore")  # workers live on, and would keep the input locked
    return out


def _check_room(out: Path, n_bytes: int, n_bytes_copied: int, n_bytes_there: int) -> None:
    # the answers, in parts and put together, and the copy of the input; less what an earlier run has written
    needed, free = 2 * n_bytes + n_bytes_copied - n_bytes_there, shutil.disk_usage(out.parent).free
    logger.info("The result takes up to %.2f GB.", n_bytes / 1e9)
    if needed > free:
        raise OSError(
            f"{out}: writing it takes {needed / 1e9:.2f} GB of disk, of which {free / 1e9:.2f} GB are free; write it "
            "elsewhere, impute fewer genes, or only missing entries instead of all zeros."
        )


def _claim(parts: Path, plan: Plan) -> None:
    """Check that what lies in `parts` belongs to this plan; the first to come leaves its name."""
    name = parts / "plan.json"
    if not name.exists():
        with atomic(name) as temporary:
            temporary.write_text(json.dumps(plan.identity(), indent=1))
    found = json.loads(name.read_text())
    differing = [key for key, value in plan.identity().items() if found.get(key) != value]
    if differing:
        raise ValueError(
            f"{parts}: this folder holds unfinished work of other settings or data ({', '.join(differing)} differ); "
            "finish it, or delete the folder."
        )


@contextmanager
def _working(
    client: "Client | None", work: Callable[[int, int], int], chunks: list[tuple[int, int]]
) -> Iterator[Iterator[int]]:
    """Have chunks answered, by a cluster from here on; yield their first rows as answers come, in any order."""
    if client is None:
        yield (work(*chunk) for chunk in chunks)
        return
    # pure would let dask take a file for written because it once was
    futures = {client.submit(work, *chunk, pure=False): chunk for chunk in chunks}
    try:
        yield _results(futures)
    finally:
        with suppress(Exception):  # of a cluster that is gone
            client.cancel(list(futures))  # or workers went on with what nobody waits for


def _in_order(
    starts: range, done: set[int], working: Iterator[int], callback: Callable[[int, int], None] | None
) -> Iterator[int]:
    """First rows of all chunks in their order, each as soon as it is answered."""
    for start in starts:
        while start not in done:
            done.add(next(working))
            if callback is not None:
                callback(len(done), len(starts))
        yield start


def _results(futures: "Mapping[Future, tuple[int, int]]") -> Iterator[int]:
    from distributed import CancelledError, KilledWorker, as_completed

    for future in as_completed(futures):
        try:
            yield future.result()
        except KilledWorker as error:
            start, stop = futures[future]
            raise OSError(
                f"Workers died of the rows {start:,} to {stop:,}, whenever they were tried: of too little memory, most "
                "likely. Ask for smaller chunks, or fewer workers on a machine; what is done is kept."
            ) from error
        except CancelledError as error:
            raise OSError("The cluster is gone. Start again: what is done is kept.") from error


def _put_together(starts: Iterable[int], answers: Path, plan: Plan, store: Path, out: Path) -> None:
    """Copy the store, add the layers as the answers come, and move it to its place."""
    records: list[dict[str, Any]] = []
    n_vars = open_store(store).n_vars

    def blocks() -> Iterator[Matrices]:
        for start in starts:
            matrices, record = read_answer(answers, start, n_vars)
            records.append(record)
            yield matrices

    draft = answers.with_name(f"draft{format_of(store)}")
    copy_store(store, draft)
    add_layers(draft, blocks(), plan.n_obs)
    plan.rows.store.check()  # after it was copied and all chunks were read
    record = {**records[0], "n_cells": plan.n_obs, "n_imputed": sum(r["n_imputed"] for r in records)}
    add_record(draft, plan.rows.key_added, record)
    replace_store(draft, out)
