"""Methods whose outcome is known. They are unpickled in other processes, hence a module of their own."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Fake:
    """Knows all cells, finds those it is asked for by their observed entries, and predictions with the truth."""

    counts: np.ndarray
    name: str = "perfect"

    def fit(self, counts, missing, *, labels=None, seed=0):
        return self

    def impute(self, counts, missing, *, labels=None):
        observed = np.ones(counts.shape, dtype=bool) if missing is None else ~missing
        same = [np.flatnonzero((self.counts == c)[:, o].all(axis=1))[0] for c, o in zip(counts, observed, strict=True)]
        return self.counts[same]


class Sampler(Fake):
    """Every draw is one more than the truth, the first but two more; mean and whole counts are none of these."""

    def impute(self, counts, missing, *, labels=None):
        return super().impute(counts, missing) + 7

    def impute_whole(self, counts, missing, *, labels=None):
        return super().impute(counts, missing) + 3

    def sample(self, counts, missing, n_samples, *, labels=None, seed=0):
        truth = super().impute(counts, missing)
        draws = np.stack([truth + 1] * n_samples)
        draws[0] += 1
        return draws


class Broken(Fake):
    def fit(self, counts, missing, *, labels=None, seed=0):
        raise RuntimeError("no\nluck | today")


class NotInstalled(Fake):
    def fit(self, counts, missing, *, labels=None, seed=0):
        import no_such_package  # noqa: F401


class Killed(Fake):
    def fit(self, counts, missing, *, labels=None, seed=0):
        os.kill(os.getpid(), signal.SIGKILL)


class Fractional(Fake):
    """Nearer to the truth than to any other whole numbers."""

    def impute(self, counts, missing, *, labels=None):
        return super().impute(counts, missing) + np.float32(0.4)


class Negative(Fake):
    def impute(self, counts, missing, *, labels=None):
        return counts - 1.5


class Picky(Fake):
    """Fails where more than half of the entries are missing."""

    def impute(self, counts, missing, *, labels=None):
        if missing.mean() > 0.6:
            raise ValueError("too much is missing")
        return super().impute(counts, missing)


class Hungry(Fake):
    def fit(self, counts, missing, *, labels=None, seed=0):
        np.ones(200 * 2**20, dtype=np.uint8)
        return self


@dataclass
class Diligent(Fake):
    """Keeps a diary of what it fits; fails as long as there is a file `obstacle`."""

    diary: Path = Path()
    obstacle: Path = Path("/nowhere")

    def fit(self, counts, missing, *, labels=None, seed=0):
        if self.obstacle.exists():
            raise RuntimeError("obstacle")
        with self.diary.open("a") as file:
            file.write(f"{len(counts)} {'complete' if missing is None else 'holes'} {seed}\n")
        return self
