"""Running a method on a split, in a process of its own."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .interfaces import Failure, Job, Prediction, Split

if TYPE_CHECKING:
    from countsdiff.baselines import Imputer


def predict_in_subprocess(
    method: "Imputer", split: Split, *, n_draws: int, seed: int
) -> Iterator[Prediction | Failure]:
    """Yield an outcome for each query of a split, in order, once the method is through with all of them.

    Parameters
    ----------
    method
        Anything with ``fit``, as :class:`countsdiff.baselines.Imputer`, of an importable class.
    split
        What to fit and predict.
    n_draws
        Number of draws wanted if the method can sample.
    seed
        Seed of fitting and of draws.
    """
    job = Job(method, split.seen, tuple(query.cells for query in split.queries), n_draws, seed)
    with tempfile.TemporaryDirectory(prefix="countsdiff-") as name:
        folder = Path(name)
        (folder / "job.pkl").write_bytes(pickle.dumps(job))
        command = [sys.executable, "-m", "countsdiff.benchmark._worker", name]
        places = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}  # of modules
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=places)
        for i in range(len(split.queries)):
            outcome = folder / f"{i}.pkl"
            # our own files, written a moment ago
            yield pickle.loads(outcome.read_bytes()) if outcome.exists() else Failure("failed", _cause(done))


def _cause(done: "subprocess.CompletedProcess[str]") -> str:
    """Why a process ended without an outcome."""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}, for want of memory perhaps"
    lines = done.stderr.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {done.returncode}")
