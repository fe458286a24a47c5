import numpy as np

from countsdiff.baselines import GAIN, GeneMean, SizeFactorMean
from countsdiff.metrics import rmse
from countsdiff.pp import mcar


def test_beats_the_means_where_genes_go_together():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.7, 6.0, (3, 40))
    counts = rng.poisson(profiles[rng.integers(3, size=800)]).astype(np.float32)
    hidden = mcar(counts.shape, 0.3)
    error = {
        type(imputer): rmse(counts[hidden], imputer.impute(counts, hidden)[hidden])
        for imputer in (GAIN(n_steps=400, width=64), GeneMean(), SizeFactorMean())
    }
    assert error[GAIN] < 0.7 * error[GeneMean]
    assert error[GAIN] < 0.7 * error[SizeFactorMean]
