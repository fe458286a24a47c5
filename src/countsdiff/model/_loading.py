"""Minibatches of data whose matrices are on disk."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from torch import Tensor
from torch.utils.data import Sampler

from countsdiff.counts import dense_rows, is_on_disk
from countsdiff.model._data import KEYS

_BLOCK = 16  # neighbouring cells read at a time: a row of its own costs as much to find as sixteen
_POOL = 128  # blocks that are shuffled together


def on_disk(manager: AnnDataManager) -> bool:
    """Whether a matrix of registered data has to be read: scvi-tools' own loader cannot read all of them."""
    keys = [key for key in (REGISTRY_KEYS.X_KEY, KEYS.MISSING) if key in manager.data_registry]
    return any(is_on_disk(manager.get_from_registry(key)) for key in keys)


class _Cells:
    """What is registered of cells, as tensors of the types that scvi-tools gives them."""

    def __init__(self, manager: AnnDataManager):
        data = {key: manager.get_from_registry(key) for key in manager.data_registry}
        self._matrices = {key: data.pop(key) for key in (REGISTRY_KEYS.X_KEY, KEYS.MISSING) if key in data}
        self._columns = {key: as_tensor(key, values) for key, values in data.items()}

    def __call__(self, rows: NDArray[np.intp]) -> dict[str, Tensor]:
        tensors = {}
        for key, matrix in self._matrices.items():
            tensors[key] = torch.as_tensor(dense_rows(matrix, rows).astype(np.float32, copy=False))
        return tensors | {key: values[rows] for key, values in self._columns.items()}


class CellsInOrder:
    """Minibatches of cells in the order given, as often as they are asked for.

    Parameters
    ----------
    manager
        Registered data.
    indices
        Cells.
    batch_size
        Cells per minibatch.
    """

    def __init__(self, manager: AnnDataManager, indices: NDArray[np.intp], batch_size: int):
        self._cells, self._indices, self._batch_size = _Cells(manager), indices, batch_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(self._indices), self._batch_size):
            yield self._cells(self._indices[start : start + self._batch_size])


class Steps(Sampler[list[int]]):
    """All cells in a random order, a step's at a time; only the first of several passes needs them read."""

    def __init__(self, n_cells: int, step_size: int, n_passes: int):
        self._n_cells, self._step_size, self._n_passes = n_cells, step_size, n_passes

    def __len__(self) -> int:
        return -(-self._n_cells // self._step_size) * self._n_passes

    def __iter__(self) -> Iterator[list[int]]:
        # the second of two numbers: the first is the one that scvi-tools' loader takes, whose order this is
        _, seed = (int(torch.empty((), dtype=torch.int64).random_()) for _ in range(2))
        order = torch.randperm(self._n_cells, generator=torch.Generator().manual_seed(seed)).tolist()
        for start in range(0, self._n_cells, self._step_size):
            cells = order[start : start + self._step_size]
            yield cells
            for _ in range(self._n_passes - 1):
                yield cells[:1]


class BlockLoader:
    """Minibatches of cells whose matrices are on disk.

    Neighbours are read together, and every minibatch is drawn from a pool of many such blocks: files are often sorted
    by sample, and a minibatch must not be of one sample. Cells that fit into one pool come in the order that they have
    in memory.

    Parameters
    ----------
    manager
        Registered data.
    indices
        Cells.
    batch_size
        Cells per step.
    n_passes
        Passes that share the cells of a step; only the first needs them, see
        :class:`~countsdiff.model._steps.StepSplitter`.
    """

    def __init__(self, manager: AnnDataManager, indices: NDArray[np.intp], batch_size: int, n_passes: int = 1):
        self._cells = _Cells(manager)
        self._indices = np.sort(indices)
        self._batch_size = batch_size
        self._n_passes = n_passes
        self._steps = Steps(len(indices), batch_size, n_passes)
        self._n_pool = max(_POOL, 2 * batch_size // _BLOCK)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if len(self._indices) > self._n_pool * _BLOCK:
            yield from self._from_pools()
            return
        tensors = self._cells(self._indices)
        for cells in self._steps:
            yield {key: value[cells] for key, value in tensors.items()}

    def _from_pools(self) -> Iterator[dict[str, Tensor]]:
        blocks = np.array_split(self._indices, math.ceil(len(self._indices) / _BLOCK))
        rng = np.random.default_rng(int(torch.empty((), dtype=torch.int64).random_()))
        order = rng.permutation(len(blocks))
        rest = np.empty(0, dtype=np.intp)
        for start in range(0, len(order), self._n_pool):
            pool = np.concatenate([rest, *(blocks[i] for i in order[start : start + self._n_pool])])
            is_last = start + self._n_pool >= len(order)
            # what does not fill a minibatch waits for the next pool
            n_now = len(pool) if is_last else len(pool) - len(pool) % self._batch_size
            pool = rng.permutation(pool)
            now, rest = np.sort(pool[:n_now]), pool[n_now:]
            tensors = self._cells(now)
            shuffled = torch.as_tensor(rng.permutation(n_now))
            for batch in shuffled.split(self._batch_size):
                yield {key: value[batch] for key, value in tensors.items()}
                for _ in range(self._n_passes - 1):
                    yield {key: value[batch[:1]] for key, value in tensors.items()}


def as_tensor(key: str, values: Any) -> Tensor:
    """Registered columns as tensors ``(n_obs, n_columns)``, of the types that scvi-tools gives them."""
    codes = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY, REGISTRY_KEYS.CAT_COVS_KEY)
    # a table of numbers and booleans is an array of objects; tables of pandas 3 are read-only, which a tensor cannot be
    table = np.asarray(values, dtype=np.int64 if key in codes else np.float32)
    return torch.tensor(table).reshape(len(table), -1)
