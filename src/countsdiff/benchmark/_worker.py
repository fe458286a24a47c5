"""The process in which a method works: ``python -m countsdiff.benchmark._worker FOLDER``.

It reads ``job.pkl`` in the folder and writes the outcome of query i to ``{i}.pkl``. It is a process of its own so
that time and memory are the method's alone, and a method that is killed takes nothing else with it.
"""

import pickle
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from countsdiff.baselines import FittedRounder, FittedSampler
from countsdiff.benchmark.interfaces import Cells, Counts, Failure, Job, Prediction


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB; NaN on Windows, whose Python does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; there ru_maxrss begins at the size of the process that started this one
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def work(folder: Path) -> None:
    """Do the job in the folder; what a method raises is its outcome, too."""
    job: Job = pickle.loads((folder / "job.pkl").read_bytes())
    outcomes = [folder / f"{i}.pkl" for i in range(len(job.queries))]
    try:
        seen = job.seen
        fitted, fit_seconds = _timed(
            lambda: job.method.fit(seen.counts, seen.missing, labels=seen.labels, seed=job.seed)
        )
    except Exception as error:  # noqa: BLE001
        for path in outcomes:
            _write(path, Failure.of(error))
        return
    for path, cells in zip(outcomes, job.queries, strict=True):
        try:
            outcome: Prediction | Failure = _predict(fitted, cells, job, fit_seconds)
        except Exception as error:  # noqa: BLE001
            outcome = Failure.of(error)
        _write(path, outcome)


def _predict(fitted: Any, cells: Cells, job: Job, fit_seconds: float) -> Prediction:
    shape = cells.counts.shape
    mean, impute_seconds = _timed(lambda: fitted.impute(cells.counts, cells.missing, labels=cells.labels))
    draws, sample_seconds = None, 0.0
    if job.n_draws and isinstance(fitted, FittedSampler):
        draws, sample_seconds = _timed(
            lambda: fitted.sample(cells.counts, cells.missing, job.n_draws, labels=cells.labels, seed=job.seed)
        )
        draws = _check(draws, (job.n_draws, *shape))
    whole = None
    if job.n_draws and isinstance(fitted, FittedRounder):
        whole = _check(fitted.impute_whole(cells.counts, cells.missing, labels=cells.labels), shape)
    return Prediction(_check(mean, shape), draws, whole, fit_seconds, impute_seconds, sample_seconds, peak_memory())


def _check(predicted: Any, shape: tuple[int, ...]) -> Counts:
    counts = np.asarray(predicted, dtype=np.float32)
    if counts.shape != shape:
        raise ValueError(f"the prediction has shape {counts.shape}, wanted {shape}")
    wrong = counts[~(np.isfinite(counts) & (counts >= 0))]
    if wrong.size:
        raise ValueError(f"the prediction holds {wrong[0]:g}; counts are finite and not negative")
    return counts


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def _write(path: Path, outcome: Prediction | Failure) -> None:
    path.write_bytes(pickle.dumps(outcome))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
