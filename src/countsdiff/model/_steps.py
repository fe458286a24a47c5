"""Which cells every step of training sees."""

from collections.abc import Iterator
from typing import Any

import torch
from scvi import settings
from scvi.dataloaders import DataSplitter
from torch.utils.data import DataLoader, Sampler

from countsdiff.model._loading import BlockLoader, CellsInOrder, on_disk


class StepSplitter(DataSplitter):
    """Minibatches that hold all cells of a step, of training as of validation, on all devices the same.

    Parameters
    ----------
    *args, **kwargs
        See :class:`scvi.dataloaders.DataSplitter`.
    n_passes
        Passes through the network that share the cells of a step, so many times ``batch_size``.
    distributed_sampler
        Ignored: devices share the cells of a step after they were read.
    """

    def __init__(self, *args, batch_size: int, n_passes: int = 1, distributed_sampler: bool = False, **kwargs):
        super().__init__(*args, batch_size=batch_size * n_passes, **kwargs)
        self._n_passes = n_passes

    def train_dataloader(self) -> DataLoader | BlockLoader:
        """Create the loader of training cells."""
        step_size = self.data_loader_kwargs["batch_size"]
        if on_disk(self.adata_manager):
            return BlockLoader(self.adata_manager, self.train_idx, step_size, self._n_passes)
        return DataLoader(
            self.adata_manager.create_torch_dataset(indices=self.train_idx),
            batch_size=None,
            sampler=_Steps(len(self.train_idx), step_size, self._n_passes),
            num_workers=settings.dl_num_workers,
            persistent_workers=settings.dl_persistent_workers,
            generator=torch.Generator(),  # the loader draws numbers when it pleases; the order of cells is torch's own
        )

    def val_dataloader(self) -> DataLoader | None:
        """Create the loader of validation cells, which are kept in memory where the data are on disk."""
        if len(self.val_idx) == 0 or not on_disk(self.adata_manager):
            loader: DataLoader | None = super().val_dataloader()
            return loader
        kept: Any = list(CellsInOrder(self.adata_manager, self.val_idx, self.data_loader_kwargs["batch_size"]))
        return DataLoader(kept, batch_size=None)  # Lightning takes a list for several loaders


class _Steps(Sampler[list[int]]):
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
