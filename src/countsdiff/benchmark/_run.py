from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ._data import Dataset
from ._results import PEAK_MEMORY, Results, Unit
from ._subprocess import predict_in_subprocess
from .interfaces import Failure, Prediction, Query, Score, Task

if TYPE_CHECKING:
    from countsdiff.baselines import Imputer


def run(
    task: Task,
    datasets: Sequence[Dataset],
    methods: Sequence["Imputer"],
    seeds: Sequence[int],
    results: Results,
) -> None:
    """Have methods predict the queries of a task, and add the scores to the results, query by query.

    What stands in the results is not done again. A method works in a process of its own, so that its class must be in
    a module, not in the script or notebook that calls this; one that is not installed or fails gets a row that says so.

    Parameters
    ----------
    task
        What to ask.
    datasets, methods, seeds
        Every method is asked on every data set with every seed; methods are told apart by their names.
    results
        Where to add the scores.

    Raises
    ------
    ValueError
        If the results are of other data of the same name, a query cannot be made of a data set, or the class of a
        method is not in a module.
    """
    for method in methods:
        if type(method).__module__ == "__main__":
            raise ValueError(
                f"The class {type(method).__name__} of the method {method.name!r} is defined in this script or "
                "notebook, where a process of its own does not find it; put it into a file and import it from there."
            )
    for data in datasets:
        results.register(data)
    todo = _todo(task, datasets, methods, seeds, results)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(task.name, total=sum(len(masks) for *_, masks in todo))
        for data, seed, method, masks in todo:
            progress.update(bar, description=f"{task.name}: {data.name}, {method.name}, seed {seed}")
            for split in task.splits(data, masks, seed):
                outcomes = predict_in_subprocess(method, split, n_draws=task.n_draws, seed=seed)
                for query, outcome in zip(split.queries, outcomes, strict=True):
                    unit = Unit(task.name, data.name, query.mask, method.name, seed)
                    results.add(unit, _scores(task, data, seed, query, outcome))
                    if isinstance(outcome, Failure):
                        progress.print(f"{method.name} {outcome.kind}: {outcome.reason}", markup=False)
                    progress.advance(bar)


def _todo(
    task: Task, datasets: Sequence[Dataset], methods: Sequence["Imputer"], seeds: Sequence[int], results: Results
) -> list[tuple[Dataset, int, "Imputer", list[str]]]:
    """Masks that are not done, for every data set, seed and method that has some."""
    done = results.done()
    jobs = []
    for data in datasets:
        for seed in seeds:
            for method in methods:
                masks = [m for m in task.masks if Unit(task.name, data.name, m, method.name, seed) not in done]
                if masks:
                    jobs.append((data, seed, method, masks))
    return jobs


def _scores(task: Task, data: Dataset, seed: int, query: Query, outcome: Prediction | Failure) -> Iterator[Score]:
    if isinstance(outcome, Failure):
        yield Score("", outcome.kind, float("nan"), outcome.reason)
        return
    yield from task.score(data, seed, query, outcome)
    yield Score("", "fit_seconds", outcome.fit_seconds)
    yield Score("", "impute_seconds", outcome.impute_seconds)
    if outcome.draws is not None:
        yield Score("", "sample_seconds", outcome.sample_seconds)
    yield Score("", PEAK_MEMORY, outcome.peak_memory_mb)
