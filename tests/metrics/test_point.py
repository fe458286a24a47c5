import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from countsdiff.metrics import bias, evaluate, mae, poisson_loss, r2, relative_bias, rmse, spearman_per_cell

POINT_METRICS = (rmse, mae, bias, relative_bias, r2, poisson_loss)


@pytest.fixture
def entries():
    rng = np.random.default_rng(0)
    mean = rng.gamma(1.0, 2.0, 5000)
    return rng.poisson(mean).astype(np.float32), mean.astype(np.float32)


def test_agree_with_sklearn(entries):
    truth, prediction = (e.astype(np.float64) for e in entries)
    assert rmse(truth, prediction) == pytest.approx(mean_squared_error(truth, prediction) ** 0.5)
    assert mae(truth, prediction) == pytest.approx(mean_absolute_error(truth, prediction))
    assert r2(truth, prediction) == pytest.approx(r2_score(truth, prediction))


def test_known_answers():
    truth, prediction = [0, 1, 5], [1, 1, 1]
    assert rmse(truth, prediction) == pytest.approx(np.sqrt(17 / 3))
    assert mae(truth, prediction) == pytest.approx(5 / 3)
    assert bias(truth, prediction) == -1
    assert relative_bias(truth, prediction) == -0.5
    assert r2(truth, prediction) == pytest.approx(1 - 17 / 14)
    assert poisson_loss(truth, prediction) == pytest.approx(1.001 - 2 * np.log(1.001))


def test_perfect_prediction(entries):
    truth, _ = entries
    assert [m(truth, truth) for m in (rmse, mae, bias, relative_bias, r2)] == [0, 0, 0, 0, 1]


def test_r2_uses_variance_of_truth(entries):
    truth, prediction = entries
    assert r2(truth, np.full_like(truth, truth.mean(dtype=np.float64))) == pytest.approx(0, abs=1e-6)
    assert r2(truth, prediction) != pytest.approx(r2(prediction, truth), abs=0.01)


def test_poisson_loss_is_the_likelihood_up_to_a_constant(entries):
    truth, prediction = entries

    def nll(y):
        return -np.mean(stats.poisson.logpmf(truth, y.astype(np.float64) + 1e-3))

    other = prediction * 1.3
    difference = poisson_loss(truth, other) - poisson_loss(truth, prediction)
    assert difference == pytest.approx(nll(other) - nll(prediction), rel=1e-6)


def test_poisson_loss_is_least_at_the_mean(entries):
    truth, mean = entries
    worse = [poisson_loss(truth, mean * factor) for factor in (0.0, 0.8, 1.2)]
    assert min(worse) > poisson_loss(truth, mean)


def test_undefined_where_truth_says_nothing():
    assert np.isnan(r2([2, 2], [1, 3]))
    assert np.isnan(relative_bias([0, 0], [1, 3]))
    assert np.isnan(r2([0.1, 0.1, 0.1], [0.2, 0.2, 0.2]))  # whose mean is another, rounded


def test_what_was_not_predicted_has_no_score(matrices):
    truth, imputed, hidden = matrices
    imputed = imputed.copy()
    imputed[tuple(np.argwhere(hidden)[0])] = np.nan
    assert np.isnan(list(evaluate(truth, imputed, hidden).values())).all()


def test_data_frames_are_matrices(matrices):
    frames = [pd.DataFrame(matrix) for matrix in matrices]
    assert evaluate(*frames) == evaluate(*matrices)


@pytest.mark.parametrize("metric", POINT_METRICS)
def test_refuses_other_shapes(metric):
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        metric([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"one-dimensional.*\(1, 2\)"):
        metric([[1, 2]], [[1, 2]])
    with pytest.raises(ValueError, match="empty"):
        metric([], [])


def test_poisson_loss_refuses_negative_means():
    with pytest.raises(ValueError, match=r"-0\.5"):
        poisson_loss([1, 2], [1, -0.5])


@pytest.fixture
def matrices():
    rng = np.random.default_rng(1)
    truth = rng.poisson(rng.gamma(0.5, 2.0, (30, 40)))
    prediction = np.round(truth + rng.gamma(1.0, 1.0, truth.shape), 1)  # rounding makes ties
    hidden = rng.random(truth.shape) < 0.5
    hidden[0] = False
    hidden[1] = np.arange(40) == 7  # a single hidden entry has no rank correlation
    truth[2] = 3  # nor has a constant
    prediction[3] = 1  # which ranks nothing
    return truth, prediction, hidden


def test_spearman_agrees_with_scipy(matrices):
    truth, prediction, hidden = matrices
    cells = range(4, 30)
    expected = [stats.spearmanr(truth[i][hidden[i]], prediction[i][hidden[i]]).statistic for i in cells]
    expected.append(0.0)  # of the constant prediction
    assert spearman_per_cell(truth, prediction, hidden) == pytest.approx(np.mean(expected), rel=1e-10)


def test_spearman_sees_ranks_only(matrices):
    truth, prediction, hidden = matrices
    assert spearman_per_cell(truth, truth**3, hidden) == pytest.approx(1)
    assert spearman_per_cell(truth, -truth, hidden) == pytest.approx(-1)
    assert np.isnan(spearman_per_cell(truth[:3], prediction[:3], hidden[:3]))


def test_zeros_where_it_is_at_a_loss_do_not_make_a_prediction_better(matrices):
    truth, prediction, hidden = (m[4:] for m in matrices)
    lazy = prediction.copy()
    lazy[5:] = 0
    expected = spearman_per_cell(truth[:5], prediction[:5], hidden[:5]) * 5 / len(truth)
    assert spearman_per_cell(truth, lazy, hidden) == pytest.approx(expected, rel=1e-10)


def test_evaluate_scores_hidden_entries_only(matrices):
    truth, prediction, hidden = matrices
    expected = {metric.__name__: metric(truth[hidden], prediction[hidden]) for metric in POINT_METRICS}
    expected["spearman_per_cell"] = spearman_per_cell(truth, prediction, hidden)
    assert evaluate(truth, prediction, hidden) == expected
    elsewhere = np.where(hidden, prediction, 1e6)
    assert evaluate(truth, elsewhere, hidden) == expected


@pytest.mark.parametrize("as_sparse", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix])
def test_evaluate_alike_for_sparse_matrices(matrices, as_sparse):
    truth, prediction, hidden = matrices
    expected = evaluate(truth, prediction, hidden)
    result = evaluate(as_sparse(truth), as_sparse(prediction), as_sparse(hidden))
    assert result == pytest.approx(expected, rel=1e-12)


def test_evaluate_refuses(matrices):
    truth, prediction, hidden = matrices
    with pytest.raises(ValueError, match=r"\(30, 40\).*\(29, 40\)"):
        evaluate(truth, prediction, hidden[1:])
    with pytest.raises(ValueError, match="int64"):
        evaluate(truth, prediction, hidden.astype(np.int64))
    with pytest.raises(ValueError, match="hide at least one"):
        evaluate(truth, prediction, np.zeros_like(hidden))


def test_a_whole_table_is_no_matrix():
    import anndata as ad

    from countsdiff import metrics, pl, pp

    table = ad.AnnData(np.ones((3, 2), dtype=np.float32))
    calls = (
        lambda: metrics.evaluate(table, table.X, table.X > 0),
        lambda: metrics.mmd(table, table.X),
        lambda: pp.molecular_split(table, 0.5),
        lambda: pp.poisson_counts(table),
        lambda: pl.recovery(table, table, imputed=None, hidden=table.X > 0, show=False),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"is an AnnData; give one of its matrices, such as .X"):
            call()


def test_sparse_matrices_are_no_entries_and_nothing_hidden_is_said():
    matrix = sparse.csr_matrix(np.eye(3))
    with pytest.raises(ValueError, match="need one-dimensional arrays"):
        rmse(matrix, matrix)
    for kind in (sparse.csr_matrix, np.asarray):
        with pytest.raises(ValueError, match="nothing to score"):
            evaluate(kind(np.eye(3)), kind(np.eye(3)), np.zeros((3, 3), dtype=bool))


def test_data_frames_have_to_be_in_one_order():
    truth = pd.DataFrame(np.arange(6.0).reshape(2, 3), ["c0", "c1"], ["g0", "g1", "g2"])
    hidden = np.ones((2, 3), dtype=bool)
    assert evaluate(truth, truth.copy(), hidden)["rmse"] == 0.0
    for other in (truth.iloc[::-1], truth.iloc[:, ::-1]):
        with pytest.raises(ValueError, match="truth and prediction have other cells or genes, or another order"):
            evaluate(truth, other, hidden)


def test_masked_arrays_are_refused():
    masked = np.ma.masked_array([1.0, 2.0, 100.0], [0, 0, 1])
    with pytest.raises(TypeError, match="masked array"):
        rmse(masked, [1.0, 2.0, 0.0])
    with pytest.raises(TypeError, match="masked array"):
        evaluate(masked[None], masked[None], np.ones((1, 3), dtype=bool))
