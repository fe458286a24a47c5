import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from countsdiff.arguments import MAX_SEED
from countsdiff.cli._io import InputError, blame, check_folder, read, say

if TYPE_CHECKING:
    from anndata import AnnData

    from countsdiff.benchmark import Dataset
    from countsdiff.benchmark.interfaces import Task

_BUNDLED = "pbmc3k"


class TaskName(StrEnum):
    """What to ask of the methods."""

    IMPUTATION = "imputation"
    MOLECULAR_CV = "molecular_cv"
    NULL = "null"


class Design(StrEnum):
    """Which cells are fitted, and which imputed."""

    PAPER = "paper"
    IN_PLACE = "in_place"


def benchmark(
    data: Annotated[
        list[str] | None,
        Argument(
            metavar="[FILE|NAME]...",
            help="Raw counts, .h5ad or .zarr; or pbmc3k, fetal_atlas, heart_atlas.",
            show_default=_BUNDLED,
        ),
    ] = None,
    task: Annotated[TaskName, Option(help="What to ask of the methods.")] = TaskName.IMPUTATION,
    design: Annotated[
        Design | None,
        Option(
            help="Imputation: fit complete cells and impute others (paper), or the same cells (in_place).",
            show_default="paper",
        ),
    ] = None,
    masks: Annotated[
        str | None,
        Option(
            metavar="M,M,…",
            help="Imputation: what to hide.",
            show_default="all; in place mcar50",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        Option(metavar="M,M,…", help="Methods; an unknown name lists those there are.", show_default="all"),
    ] = None,
    seeds: Annotated[str, Option(metavar="N,N,…", help="Seeds of splits, masks and methods.")] = "0",
    layer: Annotated[
        str | None, Option(help="Layer with the counts.", show_default="counts if there is one, else X")
    ] = None,
    genes: Annotated[int, Option(min=2, help="Number of genes, the most variable.")] = 1000,
    labels_key: Annotated[
        str | None, Option(help="Column of obs with the label, for the methods that use one.")
    ] = None,
    scvi_model: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Imputation: saved scVI model of these very genes, for scFID.",
            show_default="train one",
        ),
    ] = None,
    out: Annotated[Path, Option(metavar="DIR", help="Folder for results.csv, report.md and report.html.")] = Path(
        "benchmark"
    ),
    fetch: Annotated[bool, Option("--fetch", help="Download named atlases that are not here yet.")] = False,
) -> None:
    """Compare CountsDiff with other methods on your data; run the same command again to go on after an interruption."""
    sources = data or [_BUNDLED]
    options: dict[str, object] = {
        "task": task.value,
        "design": design and design.value,
        "masks": masks,
        "methods": methods,
        "seeds": seeds,
        "layer": layer,
        "genes": genes,
        "labels-key": labels_key,
        "scvi-model": scvi_model,
        "out": out,
    }
    if task is not TaskName.IMPUTATION:
        for name in ("design", "masks", "scvi-model"):
            if options[name] is not None:
                raise InputError(f"--{name} is for --task imputation; leave it out for --task {task}.")
    numbers = _integers(seeds)
    _check_sources(sources, fetch)
    check_folder(out)

    from countsdiff.benchmark import Results, choose, prepare, run, write_report
    from countsdiff.cli._training import set_up

    set_up()
    chosen = _task(task, design or Design.PAPER, masks, scvi_model, out)
    with _one_sentence():
        names = None if methods is None else _names("--methods", methods)
        contestants = choose(chosen, names, with_labels=labels_key is not None)
    prepared = []
    for source in sources:
        with blame(Path(source)):
            prepared.append(prepare(_read(source), _name(source), layer=layer, n_genes=genes, labels_key=labels_key))
    chosen = _fitting(chosen, prepared, asked=masks is not None)
    with blame(out):
        results = Results(out)  # which makes the folder
    with _one_sentence():
        for dataset in prepared:
            results.register(dataset)
        results.add_command(_command(sources, options))
        run(chosen, prepared, contestants, numbers, results)
    say(f"Wrote {write_report(results)}, the same as report.md, and {out / 'results.csv'}.")


def _task(task: TaskName, design: Design, masks: str | None, scvi_model: Path | None, out: Path) -> "Task":
    from countsdiff.benchmark import MASKS, Imputation, Latents, MolecularCV, Null

    if task is TaskName.MOLECULAR_CV:
        return MolecularCV()
    if task is TaskName.NULL:
        return Null()
    if scvi_model is not None and not (scvi_model / "model.pt").is_file():
        raise InputError(f"{scvi_model}: there is no saved scVI model in this folder.")
    default = "mcar50" if design is Design.IN_PLACE else ",".join(MASKS)
    with _one_sentence():
        return Imputation(
            Latents(out / "scvi", scvi_model),
            tuple(_names("--masks", default if masks is None else masks)),
            design.value,
        )


def _fitting(task: "Task", datasets: "Sequence[Dataset]", *, asked: bool) -> "Task":
    """The task without a mask that goes by genes left out, of data of which none are."""
    from countsdiff.benchmark import Imputation

    whole = [data.name for data in datasets if not data.left_out.any()]
    if not isinstance(task, Imputation) or "mar25" not in task.masks or not whole:
        return task
    why = f"the mask mar25 goes by genes that were left out, and all of {whole[0]} were chosen"
    if asked:
        raise InputError(f"--masks: {why}; leave it out, or choose fewer genes.")
    say(f"Going on without one: {why}.")
    return replace(task, masks=tuple(mask for mask in task.masks if mask != "mar25"))


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn what does not fit together into an :class:`InputError`."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{error}.") from error


def _names(option: str, text: str) -> list[str]:
    names = list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    if not names:
        raise InputError(f"{option} {text!r} names none; leave it out, or give some with commas between.")
    return names


def _integers(text: str) -> list[int]:
    names = _names("--seeds", text)
    if not all(name.isdecimal() for name in names):
        raise InputError(f"--seeds {text}: seeds are whole numbers with commas between, as 0,1,2.")
    numbers = list(dict.fromkeys(map(int, names)))
    if max(numbers) > MAX_SEED:
        raise InputError(f"--seeds {text}: seeds are at most {MAX_SEED}.")
    return numbers


def _check_sources(sources: Sequence[str], fetch: bool) -> None:
    """Say what is wrong with a source before any of them is read."""
    from countsdiff.datasets.atlases import ATLASES

    for source in sources:
        if source in ATLASES:
            atlas = ATLASES[source]
            if not fetch and not atlas.path.is_file():
                raise InputError(f"{source}: not on this machine yet; --fetch downloads its {atlas.size}.")
        elif source != _BUNDLED and not Path(source).exists():
            known = ", ".join([_BUNDLED, *ATLASES])
            raise InputError(f"{source}: there is no such file, and no data set of this name; there are {known}.")
    names = [_name(source) for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name}: two data sets have this name; rename a file.")


def _name(source: str) -> str:
    return Path(source).name.removesuffix(".h5ad")


def _read(source: str) -> "AnnData":
    from countsdiff import datasets
    from countsdiff.datasets.atlases import ATLASES

    if source == _BUNDLED or source in ATLASES:
        return getattr(datasets, source)()
    return read(Path(source))


def _command(sources: Sequence[str], options: dict[str, object]) -> str:
    given = [(f"--{name}", str(value)) for name, value in options.items() if value is not None]
    return shlex.join(["countsdiff", "benchmark", *sources, *(part for pair in given for part in pair)])
