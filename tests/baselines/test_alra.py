import numpy as np
import pytest

from countsdiff.baselines import ALRA, get_baseline
from countsdiff.baselines._alra import _choose_rank
from countsdiff.metrics import rmse
from countsdiff.pp import mcar


@pytest.fixture(scope="module")
def low_rank():
    """Cells of three kinds without noise: their logarithms have rank three."""
    rng = np.random.default_rng(0)
    return rng.gamma(1.0, 4.0, (3, 120))[rng.integers(3, size=300)].astype(np.float32)


def test_an_exactly_low_rank_matrix_comes_back(low_rank):
    np.testing.assert_allclose(ALRA().impute(low_rank, None), low_rank, rtol=1e-3)


def test_missing_entries_of_a_low_rank_matrix_are_recovered(low_rank):
    hidden = mcar(low_rank.shape, 0.3)
    error = np.abs(ALRA().impute(low_rank, hidden) / low_rank - 1)[hidden]
    assert np.median(error) < 0.01
    assert np.quantile(error, 0.95) < 0.1


def test_cells_of_which_nothing_is_seen_have_the_average_depth(low_rank):
    hidden = np.zeros(low_rank.shape, dtype=bool)
    hidden[0] = True
    depth = low_rank[1:].sum(1).mean()
    assert ALRA().impute(low_rank, hidden)[0].sum() == pytest.approx(depth, rel=0.3)


def test_rank_is_the_last_spacing_that_stands_out():
    noise = 1 - 0.001 * np.arange(100) - 1e-4 * np.sin(np.arange(100))
    spectrum = noise + np.where(np.arange(100) < 5, 10, 0)
    assert _choose_rank(spectrum) == 5
    assert _choose_rank(noise) == 1
    assert _choose_rank(np.array([3.0, 2.0])) == 1


def test_biological_zeros_stay():
    """Half the genes are silent in one kind of cells; in the others a zero is a miss of the sequencer."""
    rng = np.random.default_rng(1)
    kinds = rng.integers(2, size=400)
    means = np.full((400, 100), 1.5)
    means[np.ix_(kinds == 0, np.arange(50))] = 0
    counts = rng.poisson(means).astype(np.float32)
    result = ALRA().impute(counts, None)
    silent, missed = means == 0, (means > 0) & (counts == 0)
    assert (result[silent] == 0).mean() > 0.9
    assert (result[missed] > 0).mean() > 0.9


def test_structure_pays(cells):
    counts, _, _ = cells
    hidden = mcar(counts.shape, 0.5)
    error = {
        name: rmse(counts[hidden], get_baseline(name).impute(counts, hidden)[hidden])
        for name in ("alra", "size_factor_mean")
    }
    assert error["alra"] < 0.9 * error["size_factor_mean"]
