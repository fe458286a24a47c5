import functools
import logging
import warnings

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import scvi
from matplotlib import pyplot as plt

import countsdiff
from countsdiff import CountsDiffImputer

CELLS_OF_A_TYPE, N_VARS = 14, 30


@pytest.fixture(scope="session")
def few_cells():
    """The bundled data, cut down: some cells of every type, and their strongest genes."""
    adata = countsdiff.datasets.pbmc3k()
    types = adata.obs.groupby("cell_type", observed=True).indices
    cells = np.concatenate([rows[:CELLS_OF_A_TYPE] for rows in types.values()])
    strength = np.asarray(adata.X.sum(0)).ravel() * adata.var["highly_variable"].to_numpy()
    genes = np.argsort(-strength)[:N_VARS]
    return adata[np.sort(cells), np.sort(genes)].copy()


@pytest.fixture
def in_small(few_cells, monkeypatch, tmp_path):
    """Have examples run as they stand, but on few cells, for a few steps, in a folder of their own."""
    train = CountsDiffImputer.train

    @functools.wraps(train)
    def train_briefly(self, max_steps=None, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(self, 10, **{"batch_size": 64, "enable_progress_bar": False, **kwargs})

    monkeypatch.setattr(scvi.settings, "verbosity", logging.WARNING)  # it reports reading files on standard output
    monkeypatch.setattr(CountsDiffImputer, "train", train_briefly)
    monkeypatch.setattr(countsdiff.datasets, "pbmc3k", few_cells.copy)
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")
