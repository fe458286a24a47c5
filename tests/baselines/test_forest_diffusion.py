import sys

import numpy as np
import pytest

from countsdiff.baselines import ForestDiffusion, GeneMean
from countsdiff.metrics import rmse
from countsdiff.pp import mcar


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ForestDiffusion", None)
    with pytest.raises(ImportError, match=r"countsdiff\[rivals\]"):
        ForestDiffusion().fit(np.ones((5, 3), dtype=np.float32), None)


def test_beats_the_gene_mean_where_genes_go_together():
    pytest.importorskip("ForestDiffusion", reason="pip install countsdiff[rivals]")
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.array([[1.0, 30.0], [20.0, 2.0]])[rng.integers(2, size=300)]).astype(np.float32)
    hidden = mcar(counts.shape, 0.3)
    forest = ForestDiffusion(n_noise_levels=15, n_copies=10, n_draws=5)
    error = {
        type(imputer): rmse(counts[hidden], imputer.impute(counts, hidden)[hidden]) for imputer in (forest, GeneMean())
    }
    assert error[ForestDiffusion] < 0.9 * error[GeneMean]


def test_refuses_what_would_take_days():
    pytest.importorskip("ForestDiffusion", reason="pip install countsdiff[rivals]")
    with pytest.raises(ValueError, match="51 are too many.*50"):
        ForestDiffusion().fit(np.ones((5, 51), dtype=np.float32), None)
