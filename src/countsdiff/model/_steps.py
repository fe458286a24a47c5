"""Which cells every step of training sees."""

from typing import Any

import torch
from scvi import settings
from scvi.dataloaders import DataSplitter
from torch.utils.data import DataLoader

from countsdiff.model._loading import BlockLoader, CellsInOrder, Steps, on_disk


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
            sampler=Steps(len(self.train_idx), step_size, self._n_passes),
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
