"""Minibatches to train on, also of matrices that are on disk."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.dataloaders import DataSplitter
from torch import Tensor
from torch.utils.data import DataLoader

from countsdiff.model._data import KEYS
from countsdiff.model._on_disk import is_on_disk, read_rows

_BLOCK = 16  # neighbouring cells read at a time: a row of its own costs as much to find as sixteen
_POOL = 128  # blocks that are shuffled together


class BlockLoader:
    """Minibatches of cells whose matrices are on disk.

    Neighbours are read together, and every minibatch is drawn from a pool of many such blocks: files are often sorted
    by sample, and a minibatch must not be of one sample.

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
        data = {key: manager.get_from_registry(key) for key in manager.data_registry}
        self._matrices = {key: data.pop(key) for key in (REGISTRY_KEYS.X_KEY, KEYS.MISSING) if key in data}
        # the dtypes that scvi-tools gives them
        self._columns = {
            key: torch.as_tensor(np.asarray(values)).to(_dtype(key)).reshape(len(values), -1)
            for key, values in data.items()
        }
        self._blocks = np.array_split(np.sort(indices), max(1, math.ceil(len(indices) / _BLOCK)))
        self._batch_size = batch_size
        self._n_obs = len(indices)

    def __len__(self) -> int:
        return math.ceil(self._n_obs / self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(int(torch.empty((), dtype=torch.int64).random_()))
        order = rng.permutation(len(self._blocks))
        rest = np.empty(0, dtype=np.intp)
        n_pool = max(_POOL, 2 * self._batch_size // _BLOCK)
        for start in range(0, len(order), n_pool):
            pool = np.concatenate([rest, *(self._blocks[i] for i in order[start : start + n_pool])])
            is_last = start + n_pool >= len(order)
            # what does not fill a minibatch waits for the next pool
            n_now = len(pool) if is_last else len(pool) - len(pool) % self._batch_size
            pool = rng.permutation(pool)
            now, rest = np.sort(pool[:n_now]), pool[n_now:]
            tensors = self._read(now)
            shuffled = torch.as_tensor(rng.permutation(n_now))
            for batch in shuffled.split(self._batch_size):
                yield {key: value[batch] for key, value in tensors.items()}

    def _read(self, rows: NDArray[np.intp]) -> dict[str, Tensor]:
        tensors = {}
        for key, matrix in self._matrices.items():
            block = read_rows(matrix, rows) if is_on_disk(matrix) else matrix[rows]
            block = block.toarray() if sparse.issparse(block) else np.asarray(block)
            tensors[key] = torch.as_tensor(block.astype(np.float32, copy=False))
        return tensors | {key: values[rows] for key, values in self._columns.items()}


class CellSplitter(DataSplitter):
    """scvi-tools' data splitter, which reads matrices on disk block by block and keeps the validation cells."""

    def train_dataloader(self):
        """Minibatches to train on."""
        if not self._on_disk():
            return super().train_dataloader()
        return BlockLoader(self.adata_manager, self.train_idx, self.data_loader_kwargs["batch_size"])

    def val_dataloader(self):
        """Minibatches to validate on, always the same."""
        loader = super().val_dataloader()
        if loader is None or not self._on_disk():
            return loader
        return DataLoader(list(loader), batch_size=None)  # Lightning takes a list for several loaders

    def _on_disk(self) -> bool:
        return is_on_disk(self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY))


def _dtype(key: str) -> torch.dtype:
    codes = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY, REGISTRY_KEYS.CAT_COVS_KEY)
    return torch.int64 if key in codes else torch.float32
