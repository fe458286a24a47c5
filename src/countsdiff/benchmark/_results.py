"""The table of results: one row for each number, and one file that only ever grows."""

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from countsdiff.files import atomic

from ._data import Dataset
from .interfaces import Score

PEAK_MEMORY = "peak_memory_mb"  # every answered unit ends with this row
FAILURES = ("absent", "failed")


class Unit(NamedTuple):
    """What is done at once, and not twice."""

    task: str
    dataset: str
    mask: str
    method: str
    seed: int


COLUMNS = (*Unit._fields, *Score._fields)


@dataclass(frozen=True)
class DatasetRecord:
    """What a name in the table stands for.

    Parameters
    ----------
    n_obs, n_vars
        Numbers of cells and genes.
    n_labels
        Number of labels, 0 without any.
    digest
        Of the counts, genes and labels, as :attr:`Dataset.digest`.
    """

    n_obs: int
    n_vars: int
    n_labels: int
    digest: str

    @classmethod
    def of(cls, data: Dataset) -> "DatasetRecord":
        """Return the record of a data set."""
        n_obs, n_vars = data.counts.shape
        return cls(n_obs, n_vars, 0 if data.labels is None else len(set(data.labels)), data.digest)


class Results:
    """Results in a folder, which is made if there is none.

    ``results.csv`` has the columns task, dataset, mask, method, seed, estimate, metric, value and note. The rows of a
    unit are appended in one piece. ``benchmark.json`` says what the names of data sets stand for, and which
    commands were run.

    Parameters
    ----------
    folder
        The folder.
    """

    def __init__(self, folder: str | Path):
        self.folder = folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._table = folder / "results.csv"
        self._record = folder / "benchmark.json"

    def register(self, data: Dataset) -> None:
        """Remember what the name of a data set stands for.

        Raises
        ------
        ValueError
            If there are results of other counts, genes or labels of this name.
        """
        new = DatasetRecord.of(data)
        old = self.datasets().get(data.name, new)
        if old != new:
            raise ValueError(
                f"{self.folder} has results of another {data.name!r} ({old.n_obs:,} cells × {old.n_vars:,} genes, "
                f"{old.n_labels} labels; now {new.n_obs:,} × {new.n_vars:,}, {new.n_labels}); choose another folder"
            )
        self._update(
            "datasets", {name: asdict(record) for name, record in (self.datasets() | {data.name: new}).items()}
        )

    def add_command(self, command: str) -> None:
        """Remember a command that adds to the results."""
        self._update("commands", list(dict.fromkeys([*self.commands(), command])))

    def datasets(self) -> dict[str, DatasetRecord]:
        """Return what the names of data sets stand for."""
        return {name: DatasetRecord(**record) for name, record in self._read().get("datasets", {}).items()}

    def commands(self) -> list[str]:
        """Return the commands that were run, each once."""
        return self._read().get("commands", [])

    def add(self, unit: Unit, scores: Iterable[Score]) -> None:
        """Append the rows of a unit; the last one has to be the peak memory, unless it failed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        with self._table.open("ab", buffering=0) as file:
            size = len(self._lines())
            file.truncate(size)  # a line that was cut off, by a power cut say, belongs to a unit that is not done
            file.seek(0, os.SEEK_END)
            if size == 0:
                writer.writerow(COLUMNS)
            writer.writerows((*unit, *score) for score in scores)
            rest = memoryview(text.getvalue().encode())
            try:
                while rest:  # one write; a full disk takes a part, and says so at the next
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(size)  # all rows, or none
                raise

    def done(self) -> set[Unit]:
        """Return the units that were answered; what failed may be tried again."""
        table = self.table()
        answered = table[table.metric == PEAK_MEMORY]
        return set(map(Unit._make, answered[list(Unit._fields)].itertuples(index=False, name=None)))

    def table(self) -> pd.DataFrame:
        """Return all rows, without failures that were made up for and without older tries."""
        if not self._table.exists() or self._table.stat().st_size == 0:
            return pd.DataFrame(columns=list(COLUMNS)).astype({"seed": int, "value": float})
        try:  # "null" and "none" are names here
            table = pd.read_csv(io.BytesIO(self._lines()), keep_default_na=False, dtype=str)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise ValueError(f"{self._table} is damaged ({error}); choose another folder, or mend it") from error
        if list(table.columns) != list(COLUMNS):
            raise ValueError(f"{self._table} is no table of results; choose another folder")
        table["seed"] = table.seed.astype(int)
        table["value"] = pd.to_numeric(table.value, errors="coerce")
        failed = table.metric.isin(FAILURES)
        answered = pd.MultiIndex.from_frame(table.loc[table.metric == PEAK_MEMORY, list(Unit._fields)])
        made_up_for = failed & pd.MultiIndex.from_frame(table[list(Unit._fields)]).isin(answered)
        # a failure of either kind takes the place of an older one
        table["kind"] = table.metric.where(~failed, "failure")
        keys = [*Unit._fields, "estimate", "kind"]
        return table[~made_up_for].drop_duplicates(keys, keep="last", ignore_index=True).drop(columns="kind")

    def _lines(self) -> bytes:
        """The lines of the table that are whole."""
        text = self._table.read_bytes()
        return text[: text.rfind(b"\n") + 1]

    def _read(self) -> dict:
        try:
            return json.loads(self._record.read_text()) if self._record.exists() else {}
        except ValueError as error:
            raise ValueError(f"{self._record} is damaged ({error}); choose another folder, or mend it") from error

    def _update(self, key: str, value: object) -> None:
        text = json.dumps(self._read() | {key: value}, indent=2) + "\n"
        with atomic(self._record) as temporary:
            temporary.write_text(text)
