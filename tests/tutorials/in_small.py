"""What a kernel imports before a tutorial in the test suite: fewer cells and genes, a few steps of training."""

import logging
import os
import re
import warnings
from pathlib import Path

import numpy as np
import scvi
import torch

import countsdiff
from countsdiff import CountsDiffImputer, image

CELLS, GENES, STEPS, EPOCHS = 400, 500, 20, 3
TUTORIALS = Path(__file__).parents[2] / "tutorials"

os.environ.pop("COUNTSDIFF_DATA", None)  # the tutorials have to do without
torch.set_num_threads(1)
warnings.simplefilter("ignore")  # twenty steps of training are nothing to trust
scvi.settings.verbosity = logging.WARNING


def _pbmc3k(whole=countsdiff.datasets.pbmc3k):
    """Some cells of every type, so that no type is lost, and some genes, with all that a tutorial speaks of."""
    adata = whole()
    share = CELLS / adata.n_obs
    types = adata.obs.groupby("cell_type", observed=True).indices.values()
    rows = np.concatenate([cells[: max(round(share * len(cells)), 8)] for cells in types])
    words = {word for path in TUTORIALS.glob("*.ipynb") for word in re.findall(r"[\w.-]+", path.read_text())}
    strongest = np.argsort(-np.asarray(adata.X.sum(0)).ravel())
    columns = np.union1d(strongest[:GENES], np.flatnonzero(adata.var_names.isin(words)))
    return adata[np.sort(rows), columns].copy()


def _train(self, max_steps=None, train=CountsDiffImputer.train, **settings):
    train(self, STEPS, **{**settings, "enable_progress_bar": False})


def _train_scvi(self, train=scvi.model.SCVI.train, **settings):
    train(self, **{**settings, "max_epochs": EPOCHS, "enable_progress_bar": False})


def _train_images(images, config, folder, train=image.train, **settings):
    return train(images, config.with_options(n_steps=STEPS, save_every=10, sample_steps=5), folder, **settings)


countsdiff.datasets.pbmc3k = _pbmc3k
CountsDiffImputer.train = _train
scvi.model.SCVI.train = _train_scvi
image.train = _train_images
