import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from countsdiff.arguments import MAX_SEED
from countsdiff.cli._io import InputError, blame, check_folder, check_output, possible, read, say
from countsdiff.cli._settings import Answer, ClusterOptions, Layers, Outputs, Training, imputed_entries
from countsdiff.files import check_same_format, format_of, unfinished


class Output(StrEnum):
    """What to write for every imputed entry."""

    MEAN = "mean"
    MEDIAN = "median"
    LOG_MEAN = "log_mean"
    SAMPLE = "sample"


class Accelerator(StrEnum):
    """What to compute on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


def impute(
    source: Annotated[
        Path, Argument(metavar="IN", help="Raw counts, an .h5ad file or a zarr store; it stays as it is.")
    ],
    out: Annotated[
        Path,
        Option(
            "--out",
            "-o",
            metavar="OUT",
            help="What to write: the input and a new layer, in its format. A file of that name is replaced at the end.",
        ),
    ],
    layer: Annotated[
        str | None, Option(help="Layer with the counts; X for X.", show_default="counts if there is one, else X")
    ] = None,
    missing_layer: Annotated[
        str | None,
        Option(
            help="Boolean layer, true where a count is missing. Without one, NaN marks missing counts; without NaN, "
            "zeros are replaced by their expected counts."
        ),
    ] = None,
    output: Annotated[Output, Option(help="Estimate to write; sample draws whole numbers.")] = Output.MEAN,
    n_samples: Annotated[int, Option(min=1, help="Number of draws of --output sample.")] = 1,
    return_std: Annotated[bool, Option("--return-std", help="Write standard deviations, too.")] = False,
    interval: Annotated[
        float | None,
        Option(help="Write the ends of the shortest interval of this coverage, too, such as 0.9.", show_default="none"),
    ] = None,
    seed: Annotated[int, Option(min=0, max=MAX_SEED, help="Seed of training and of samples.")] = 0,
    model: Annotated[
        Path | None,
        Option(metavar="DIR", help="Use this saved model; genes are matched by name.", show_default="train one"),
    ] = None,
    save_model: Annotated[Path | None, Option(metavar="DIR", help="Folder to create for the trained model.")] = None,
    batch_key: Annotated[str | None, Option(help="Column of obs with the batch.")] = None,
    labels_key: Annotated[str | None, Option(help="Column of obs with the label.")] = None,
    genes: Annotated[
        int | None,
        Option(min=1, help="Impute the most variable genes only, this many; of an .h5ad file.", show_default="all"),
    ] = None,
    steps: Annotated[
        int | None, Option(min=1, help="Length of training.", show_default="from the number of cells")
    ] = None,
    resume: Annotated[
        Path | None,
        Option(
            metavar="FILE", help="Keep a checkpoint of the training in this file, and go on from there if it exists."
        ),
    ] = None,
    key_added: Annotated[str, Option(help="Layer to write.")] = "imputed",
    report: Annotated[
        Path | None,
        Option(
            metavar="PAGE.html",
            help="Hold out a twentieth of the observed entries of an .h5ad file, and report how well they are "
            "predicted.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        Option(
            min=1,
            help="Leave matrices on disk, and let this many processes impute chunks of cells. Needs --model, or "
            "--save-model.",
            show_default="all in memory; 1 for .zarr",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="As --workers, with the workers of this Dask cluster."),
    ] = None,
    chunk_size: Annotated[
        int,
        Option(min=1, help="Cells that a worker has in memory at a time, of data on disk."),
    ] = 8192,
    accelerator: Annotated[Accelerator, Option(help="What to compute on.")] = Accelerator.AUTO,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Impute the missing counts of an .h5ad file or a zarr store, or the zeros if no count is missing."""
    from countsdiff.layers import check_key

    start = time.perf_counter()
    on_disk = workers is not None or scheduler is not None or format_of(source) == ".zarr"
    _check_paths(source, out, report, resume, save_model, model, may_go_on=on_disk)
    with blame(out):
        check_key(key_added)
    if n_samples > 1 and output is not Output.SAMPLE:
        raise InputError(f"--n-samples {n_samples} needs --output sample: {output} has one answer.")
    if interval is not None and not 0.0 < interval < 1.0:
        raise InputError(f"--interval {interval:g}: a coverage lies between 0 and 1, such as 0.9.")
    training = Training(batch_key, labels_key, genes, steps, resume, seed, accelerator.value, quiet)
    of_training = {name: getattr(training, name) for name in ("batch_key", "labels_key", "genes", "steps", "resume")}
    for name, value in (of_training | {"save_model": save_model, "report": report}).items():
        if model is not None and value is not None:
            raise InputError(f"--{name.replace('_', '-')} is for training a model: leave it out, or leave out --model.")
    layers = Layers(layer, missing_layer)
    beside = {"return_std": return_std, "interval": interval}
    answer = Answer(key_added, {"output": output.value, "n_samples": n_samples, "seed": seed, **beside})
    if on_disk:
        if report is not None:
            raise InputError("--report needs all data in memory: leave it out, or leave out --workers and --scheduler.")
        from countsdiff.cli import _chunks

        adata, record, n_genes = _chunks.impute(
            source, out, model, save_model, layers, training, answer, ClusterOptions(workers, scheduler, chunk_size)
        )
    else:
        adata = read(source)  # before heavy imports: what is no file of cells is said so at once
        from countsdiff.cli import _job

        outputs = Outputs(out, save_model, report)
        record, n_genes = _job.impute(adata, source, model, layers, training, answer, outputs)
    if not quiet:
        n_left = adata.n_vars - n_genes
        say(
            f"Imputed {imputed_entries(record)} of {adata.n_obs:,} cells × {n_genes:,} genes ({output.value}) "
            f"in {time.perf_counter() - start:.0f} s.",
            f"The other {n_left:,} genes keep their counts." if n_left else None,
            f"Saved the model to {save_model}." if save_model else None,
            f"Wrote {out}, {_where(record['layers'], n_samples)}.",
            f"Wrote {report}: how far to trust it." if report else None,
        )


def _check_paths(
    source: Path,
    out: Path,
    report: Path | None,
    resume: Path | None,
    save_model: Path | None,
    model: Path | None,
    *,
    may_go_on: bool,
) -> None:
    """Check that data are there, what is to be written can be, and that no two options name the same.

    Where a run `may_go_on` that was cut short, its model may be there.
    """
    check_output(out, source)
    if not source.exists():
        raise InputError(f"{source}: there is no such file.")
    with blame():
        check_same_format(out, source)
    for path in (report, resume):
        if path is not None:
            check_output(path, source)
    paths = {"--out": out, "--report": report, "--resume": resume, "--save-model": save_model, "--model": model}
    named: dict[Path, str] = {}
    for option, path in paths.items():
        if path is not None and (other := named.setdefault(path.resolve(), option)) != option:
            raise InputError(f"{path}: {other} and {option} name the same; choose another name for one of them.")
    if save_model is not None:
        with possible(save_model):
            exists = save_model.exists()
        with possible(out):
            may_go_on = may_go_on and unfinished(out).is_dir()
        if exists and not may_go_on:
            raise InputError(f"{save_model}: exists already; name a new folder for --save-model, or use it by --model.")
        check_folder(save_model, source)


def _where(layers: Sequence[str], n_samples: int) -> str:
    draws, beside = layers[:n_samples], layers[n_samples:]
    names = [draws[0] if n_samples == 1 else f"{draws[0]} to {draws[-1]}", *beside]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(names)}"
