import logging
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray

from countsdiff.model_files import replacing

from .interfaces import Counts

if TYPE_CHECKING:
    from ._data import Dataset

Embedding = Callable[[Counts], NDArray[np.float64]]


@dataclass(frozen=True)
class Latents:
    """Latent means of one scVI model for each data set and seed, by which scFID compares cells.

    Parameters
    ----------
    cache
        Folder that keeps the models trained here.
    model
        Folder of a saved model of the same genes to use instead.
    """

    cache: Path
    model: Path | None = None

    def of(self, data: "Dataset", train: NDArray[np.intp], seed: int) -> Embedding:
        """Return the map from counts ``(n_obs, n_vars)`` to latent means ``(n_obs, n_latent)``.

        Parameters
        ----------
        data
            Complete counts.
        train
            Rows to train on if there is no model yet.
        seed
            Seed of the training.

        Raises
        ------
        ValueError
            If the model that was named is none of scVI, or of other genes.
        """
        folder = self.model or self.cache / f"{data.name}-{data.digest}-{len(train)}-{seed}"
        if not (folder / "model.pt").is_file():
            if self.model is not None:
                raise ValueError(f"{folder}: there is no saved scVI model in this folder")
            _train(data, train, seed, folder)
        model = _load(folder)
        names = np.asarray(model.get_var_names())
        if not np.array_equal(names, data.genes):
            raise ValueError(
                f"{folder}: the {len(names)} genes of this scVI model are not the {len(data.genes)} of {data.name}"
            )
        return lambda counts: _embed(model, counts, names)


def _train(data: "Dataset", train: NDArray[np.intp], seed: int, folder: Path) -> None:
    import scvi

    counts = data.counts[train]
    counts = counts[counts.any(axis=1)]  # scVI takes the logarithm of the library size
    with _quietly(), _seeded(seed):
        adata = _as_adata(counts, data.genes)
        scvi.model.SCVI.setup_anndata(adata)
        model = scvi.model.SCVI(adata)
        model.train(enable_progress_bar=False, logger=False)
        with replacing(folder, last="model.pt") as new:
            model.save(str(new), overwrite=True)


@lru_cache(maxsize=1)
def _load(folder: Path) -> Any:
    import scvi

    with _quietly():
        return scvi.model.SCVI.load(str(folder), adata=False)


def _embed(model: Any, counts: Counts, genes: NDArray[np.str_]) -> NDArray[np.float64]:
    with _quietly():
        return model.get_latent_representation(_as_adata(counts, genes)).astype(np.float64)


def _as_adata(counts: Counts, genes: NDArray[np.str_]) -> AnnData:
    adata = AnnData(counts)
    adata.var_names = genes
    return adata


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence remarks of scVI and lightning, none of which anybody could act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed all that scvi-tools seeds, and leave it as it was."""
    import scvi

    states, settings = (random.getstate(), np.random.get_state()), scvi.settings.seed  # noqa: NPY002
    variable = os.environ.get("PL_GLOBAL_SEED")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            scvi.settings.seed = seed
            yield
        finally:
            scvi.settings.seed = settings
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            os.environ.pop("PL_GLOBAL_SEED", None)
            if variable is not None:
                os.environ["PL_GLOBAL_SEED"] = variable
