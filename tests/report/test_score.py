import numpy as np
import pytest
from scipy import stats

from countsdiff import baselines, metrics, report


class TestCdf:
    def test_is_the_negative_binomial(self):
        rng = np.random.default_rng(0)
        count, mean, shape = rng.integers(-1, 30, 500).astype(float), rng.gamma(1, 5, 500) + 1e-3, rng.gamma(2, 2, 500)
        expected = stats.nbinom.cdf(count, shape, shape / (shape + mean))
        np.testing.assert_allclose(report.cdf(count, mean, np.sqrt(mean + mean**2 / shape)), expected, atol=1e-6)

    def test_is_poisson_where_there_is_no_more_spread(self):
        count, mean = np.arange(-1.0, 20.0), np.full(21, 4.0)
        np.testing.assert_allclose(report.cdf(count, mean, np.sqrt(mean)), stats.poisson.cdf(count, 4.0), atol=1e-12)

    def test_takes_a_mean_of_zero(self):
        law = report.cdf(np.array([-1.0, 0.0, 3.0]), np.zeros(3), np.zeros(3))
        np.testing.assert_allclose(law, [0, 1, 1], atol=1e-9)


class TestCalibrate:
    def test_the_true_law_is_calibrated(self, make_held_out):
        held_out = make_held_out()
        found = report.calibrate(held_out)
        n = len(held_out.truth)
        error = np.sqrt(found.promised * (1 - found.promised) / n)
        assert abs(found.coverage - found.promised) < 4 * error
        assert found.promised > 0.9
        assert found.pit_ks < 1.95 / np.sqrt(n)  # one in a thousand
        assert sum(found.pit) == pytest.approx(1)
        assert abs(found.zeros_predicted - found.zeros_counted) < 4 * 0.5 / np.sqrt(n)

    def test_sees_a_law_that_is_too_narrow(self, make_held_out):
        held_out = make_held_out()
        low, high = (stats.poisson.ppf(u, held_out.mean) for u in (0.05, 0.95))
        narrow = report.HeldOut(
            held_out.rows,
            held_out.columns,
            held_out.shape,
            held_out.truth,
            held_out.mean,
            held_out.mean**0.5,
            low,
            high,
            0.9,
        )
        found = report.calibrate(narrow)
        assert found.promised == pytest.approx(
            np.mean(stats.poisson.cdf(high, held_out.mean) - stats.poisson.cdf(low - 1, held_out.mean))
        )
        assert found.coverage < found.promised - 0.05
        assert found.pit[0] + found.pit[-1] > 0.15  # U: a tenth, were it flat

    def test_bias_is_that_of_sums(self, make_held_out):
        held_out = make_held_out()
        assert report.calibrate(held_out).relative_bias == held_out.mean.sum() / held_out.truth.sum() - 1


def test_compare_agrees_with_metrics_and_baselines(make_held_out):
    held_out = make_held_out(0.1)
    counts = np.random.default_rng(1).poisson(3.0, held_out.shape).astype(np.float32)
    hidden = np.zeros(held_out.shape, dtype=bool)
    hidden[held_out.rows, held_out.columns] = True
    truth = np.zeros(held_out.shape)
    truth[hidden] = held_out.truth
    ours = np.zeros(held_out.shape)
    ours[hidden] = held_out.mean
    scores = report.compare(held_out, counts, hidden)
    assert [s.method for s in scores] == ["countsdiff", "size-factor mean", "kNN smoothing"]
    rivals = [baselines.get_baseline(name).impute(counts, hidden) for name in ("size_factor_mean", "knn")]
    for score, predicted in zip(scores, [ours, *rivals], strict=True):
        x, y = truth[hidden], predicted[hidden]
        assert score.r2 == pytest.approx(metrics.r2(x, y))
        assert score.rmse == pytest.approx(metrics.rmse(x, y))
        assert score.poisson_loss == pytest.approx(metrics.poisson_loss(x, y))
        assert score.spearman_per_cell == pytest.approx(metrics.spearman_per_cell(truth, predicted, hidden))


def test_labels_add_up(make_held_out):
    held_out = make_held_out()
    codes = np.arange(100) % 3
    zeros, filled = np.arange(100), np.arange(100) // 4
    found = report.by_label(["a", "b", "absent", "c"], np.array([0, 1, 3])[codes], zeros, filled, held_out)
    assert {label.label for label in found} == {"a", "b", "c"}
    assert sum(label.n_zeros for label in found) == zeros.sum()
    a = next(label for label in found if label.label == "a")
    assert (a.n_cells, a.n_filled) == (34, filled[codes == 0].sum())
    entries = codes[held_out.rows] == 0
    assert a.counted == held_out.truth[entries].sum()
    assert a.predicted == pytest.approx(held_out.mean[entries].sum())
    shares = [label.share_filled for label in found]
    assert shares == sorted(shares, reverse=True)


class TestNull:
    @pytest.fixture
    def cells(self):
        """Cells of two kinds that differ in all genes."""
        rng = np.random.default_rng(0)
        rates = rng.gamma(1.0, 6.0, (2, 40))
        return rng.poisson(rates[np.arange(300) % 2]).astype(np.float32)

    def test_what_leaves_counts_as_they_are_invents_nothing(self, cells):
        null = report.null_check(cells, np.zeros(cells.shape, bool), lambda counts, missing, output: counts, ["mean"])
        counts, mean = null.outputs
        assert (counts.output, mean.output) == ("counts", "mean")
        assert (counts.own, counts.permuted) == (mean.own, mean.permuted)
        assert counts.permuted == pytest.approx(null.chance, rel=0.25)
        assert counts.own > 0.3

    def test_what_takes_cells_for_one_of_two_kinds_invents(self, cells):
        def two_kinds(counts, missing, output):
            return np.where(counts[:, :1] > np.median(counts[:, 0]), cells[0], cells[1])

        null = report.null_check(cells, np.zeros(cells.shape, bool), two_kinds, ["mean"])
        assert null.outputs[1].permuted == pytest.approx(1)

    def test_missing_entries_move_with_their_counts(self, cells):
        missing = np.random.default_rng(1).random(cells.shape) < 0.2
        cells[missing] = 99.0

        def look(counts, absent, output):
            assert absent.sum() == missing.sum()
            assert (counts[absent] == 0).all()
            assert counts.max() < 99
            return counts

        assert len(report.null_check(cells, missing, look, ["mean"]).outputs) == 2


def test_summary_counts_what_was_observed():
    counts = np.array([[1, 0, 3], [2, 0, 2], [0, 0, 0]], dtype=np.float32)
    missing = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    found = report.summarise((counts[i : i + 1], missing[i : i + 1]) for i in range(3))
    assert (found.n_cells, found.n_genes, found.n_missing) == (3, 3, 1)
    assert found.median_depth == 4
    assert found.share_zeros == 4 / 8
    assert found.share_without_ones == 1 / 2  # of the two cells with counts
    assert found.depth_variation == pytest.approx(np.std([4, 4, 0]) / np.mean([4, 4, 0]))
