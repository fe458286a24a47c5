"""What a worker does: answer for some rows of a store, and write the answer to a file."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse

from countsdiff.apply import apply, load_model
from countsdiff.counts import as_row_access, read_rows
from countsdiff.files import atomic
from countsdiff.layers import get_layer
from countsdiff.matrix import to_dense
from countsdiff.model import CountsDiffImputer
from countsdiff.model.missing import RULES
from countsdiff.store import open_store

Matrices = dict[str, Any]


@dataclass(frozen=True)
class Files:
    """A store or a model as it was when the work was planned.

    Attributes
    ----------
    path
        File or folder; not resolved, as a link may lead elsewhere on the machine of a worker.
    pattern
        Which files of a folder count.
    state
        Fingerprint: names, sizes, times of change.
    """

    path: str
    pattern: str
    state: str

    @classmethod
    def of(cls, path: Path, pattern: str = "*") -> "Files":
        """Look at the files as they are now.

        Raises
        ------
        ValueError
            If there are none.
        """
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder.")
        files = sorted(path.rglob(pattern)) if path.is_dir() else [path]
        stats = [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return cls(str(path.absolute()), pattern, hashlib.sha256(json.dumps(stats).encode()).hexdigest())

    def check(self) -> None:
        """Check that nobody has changed them since.

        Raises
        ------
        ValueError
            If somebody has: chunks would be of one and of the other.
        """
        if Files.of(Path(self.path), self.pattern) != self:
            raise ValueError(
                f"{self.path}: this was changed while it was in use; delete the unfinished work, and start again."
            )


@dataclass(frozen=True)
class Rows:
    """Answers for rows of a store.

    Attributes
    ----------
    store, model
        The data and the model.
    layer
        Layer with the counts.
    marked
        Boolean layers that mark missing entries, or none.
    missing
        Rule, layer, or None: only what is missing in the data.
    as_sparse
        Whether answers are CSR or dense.
    key_added
        Layer to write.
    options
        Arguments of ``impute``.
    accelerator
        What to compute on.
    """

    store: Files
    model: Files
    layer: str | None
    marked: tuple[str, ...]
    missing: str | None
    as_sparse: bool
    key_added: str
    options: dict[str, Any]
    accelerator: str

    def __call__(self, start: int, stop: int) -> tuple[Matrices, dict[str, Any]]:
        """Answer for the rows from `start` up to `stop`.

        Returns
        -------
        tuple
            Layers by name, and the record of what was done.
        """
        adata = _read(self.store, start, stop, self.layer, self.marked)
        missing_layer = None if self.missing in RULES else self.missing
        job = apply(saved_model(self.model, self.accelerator), adata, layer=self.layer, missing_layer=missing_layer)
        # without a rule, nothing but what is missing in the data, and be it nothing at all in these rows
        missing = self.missing or sparse.csr_matrix(job.work.shape, dtype=bool)
        with _quiet():
            record = job.impute(self.key_added, missing=missing, **self.options)
        return {name: self._packed(adata.layers[name]) for name in record["layers"]}, record

    def _packed(self, matrix: Any) -> Any:
        if self.as_sparse:
            return sparse.csr_matrix(matrix, dtype=np.float32)
        return to_dense(matrix, np.float32)


@lru_cache(maxsize=1)
def saved_model(files: Files, accelerator: str) -> CountsDiffImputer:
    """A saved model, loaded once per process."""
    files.check()
    return load_model(Path(files.path), accelerator)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings that every chunk would repeat: the plan warned once, of all of the data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Category .* has fewer than 3 cells")
        warnings.filterwarnings("ignore", "adata.layers has no .*, which marked missing entries")
        yield


@lru_cache(maxsize=1)
def _opened(files: Files) -> AnnData:
    files.check()
    return open_store(files.path)


@lru_cache(maxsize=4)
def _matrix(store: Files, name: str | None) -> Any:
    """``X`` or a layer, to be read by rows; what is stored by columns is in memory now, not read for every chunk."""
    return as_row_access(get_layer(_opened(store), name))


def close_store() -> None:
    """Let go of the store that this process has open: it cannot be written while it is."""
    _matrix.cache_clear()
    _opened.cache_clear()


def _read(store: Files, start: int, stop: int, layer: str | None, marked: tuple[str, ...]) -> AnnData:
    """Rows of a store in memory, with the matrices that are needed."""
    adata = _opened(store)

    def rows(name: str | None) -> Any:
        return read_rows(_matrix(store, name), np.arange(start, stop))

    layers = {name: rows(name) for name in {layer, *marked} if name is not None}
    x = rows(None) if layer is None else None
    return AnnData(x, obs=adata.obs.iloc[start:stop].copy(), var=adata.var[[]].copy(), layers=layers)


def part(folder: Path, start: int) -> Path:
    """File for the rows from `start` on."""
    return folder / f"rows-{start:012d}.safetensors"


def answer(folder: Path, rows: Rows, start: int, stop: int) -> int:
    """Write the answer for some rows to their file, and return `start`; readers see the whole file or none."""
    matrices, record = rows(start, stop)
    arrays: dict[str, np.ndarray] = {}
    for name, matrix in matrices.items():
        if sparse.issparse(matrix):
            arrays |= {f"{name}/{field}": getattr(matrix, field) for field in ("data", "indices", "indptr")}
        else:
            arrays[name] = np.ascontiguousarray(matrix)
    about = {"record": json.dumps(record, default=float), "names": json.dumps([*matrices])}
    with atomic(part(folder, start)) as temporary:
        temporary.write_bytes(save(arrays, about))
    return start


def is_answered(folder: Path, start: int) -> bool:
    """Whether there is a whole file for the rows from `start` on."""
    try:
        with safe_open(part(folder, start), "numpy"):
            return True
    except (OSError, SafetensorError):  # not there, or cut short when the machine went down
        return False


def read_answer(folder: Path, start: int, n_vars: int) -> tuple[Matrices, dict[str, Any]]:
    """Read what :func:`answer` wrote: layers by name, and the record."""
    with safe_open(part(folder, start), "numpy") as file:
        metadata, keys = file.metadata(), set(file.keys())
        matrices: Matrices = {}
        for name in json.loads(metadata["names"]):
            if name in keys:
                matrices[name] = file.get_tensor(name)
                continue
            data, indices, indptr = (file.get_tensor(f"{name}/{field}") for field in ("data", "indices", "indptr"))
            matrices[name] = sparse.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, n_vars))
    return matrices, json.loads(metadata["record"])
