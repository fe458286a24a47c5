import dataclasses
import sys

import numpy as np
import pytest

from countsdiff.baselines import BASELINES, MAGIC, SCVI, LabelMean, get_baseline
from countsdiff.metrics import poisson_loss
from countsdiff.pp import mcar

CLASSICAL = ("gene_mean", "size_factor_mean", "label_mean", "knn")
MAGICS = ("magic_sqrt", "magic_log", "magic_none")
TRAINED = ("scvi", "nb_autoencoder", "remdm", "gaussian_diffusion", "gain", "forest_diffusion")


@pytest.fixture(params=(*CLASSICAL, *MAGICS, "alra"))
def baseline(request):
    if request.param in MAGICS:
        pytest.importorskip("magic")
    return get_baseline(request.param)


def test_names():
    assert list(BASELINES) == [*CLASSICAL, *MAGICS, "alra", *TRAINED]
    assert all(get_baseline(name).name == name for name in BASELINES)
    with pytest.raises(ValueError, match="dca"):
        get_baseline("dca")


def test_does_not_look_at_hidden_entries_nor_change_its_input(baseline, cells):
    counts, _, kinds = cells
    hidden = mcar(counts.shape, 0.5)
    elsewhere = np.where(hidden, np.float32(np.nan), counts)
    results = [baseline.impute(c, hidden, labels=kinds, seed=3) for c in (counts, elsewhere)]
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(elsewhere[~hidden], counts[~hidden])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # cells without any distance between them
def test_a_fixed_point(baseline):
    """Counts that are exactly size factor times gene rate: nothing else can be meant by the hidden ones."""
    depth, rates = np.array([1.0, 2.0, 4.0, 8.0] * 10), np.arange(1.0, 21.0)
    if baseline.name == "gene_mean":
        depth[:] = 3
    counts = np.outer(depth, rates).astype(np.float32)
    hidden = mcar(counts.shape, 0.3)
    result = baseline.impute(counts, hidden, labels=["a"] * 40)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, counts, rtol=0.25)
    assert result.sum() == pytest.approx(counts.sum(), rel=0.02)
    nothing_hidden = baseline.impute(counts, None, labels=["a"] * 40)
    np.testing.assert_allclose(nothing_hidden, counts, rtol=1e-3)


def test_predictions_keep_the_depth_of_each_cell(baseline, cells):
    counts, _, kinds = cells
    hidden = mcar(counts.shape, 0.5)
    known = np.where(hidden, 0, baseline.impute(counts, hidden, labels=kinds))
    depth = np.where(hidden, 0, counts).sum(axis=1)
    if baseline.name == "gene_mean":
        assert known.sum() == pytest.approx(depth.sum(), rel=1e-4)
    else:
        np.testing.assert_allclose(known.sum(axis=1), depth, rtol=1e-4)


def test_structure_pays(cells):
    """The more a baseline may know, the closer it comes to the true means, which are out of reach."""
    pytest.importorskip("magic")
    counts, means, kinds = cells
    hidden = mcar(counts.shape, 0.5)
    loss = {
        name: poisson_loss(counts[hidden], get_baseline(name).impute(counts, hidden, labels=kinds)[hidden])
        for name in CLASSICAL + MAGICS
    }
    best = poisson_loss(counts[hidden], means[hidden])
    assert best < loss["label_mean"] < loss["knn"] < loss["size_factor_mean"] < loss["gene_mean"]
    assert loss["label_mean"] - best < 0.1 * (loss["gene_mean"] - best)
    assert loss["magic_log"] < 0.5 * (loss["size_factor_mean"] + best)


def test_label_mean_is_the_ratio_of_sums(cells):
    counts, _, kinds = cells
    hidden = mcar(counts.shape, 0.5)
    known = np.where(hidden, 0, counts)
    weight = known.sum(axis=1) / (~hidden @ (known.sum(axis=0) / (~hidden).sum(axis=0)))
    overall = known.sum(axis=0) / (weight @ ~hidden)
    mine = kinds == kinds[7]
    rates = (known[mine].sum(axis=0) + overall) / (weight[mine] @ ~hidden[mine] + 1)
    expected = rates * known[7].sum() / rates[~hidden[7]].sum()
    result = LabelMean().impute(counts, hidden, labels=np.array(["a", "b", "c"])[kinds])
    np.testing.assert_allclose(result[7], expected, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Input matrix contains unexpressed genes")
def test_genes_and_cells_that_are_never_observed(baseline, cells):
    counts, _, kinds = cells
    hidden = np.zeros(counts.shape, dtype=bool)
    hidden[:, 4] = hidden[9] = True
    counts = counts.copy()
    counts[11] = 0
    result = baseline.impute(counts, hidden, labels=kinds)
    assert np.isfinite(result).all()
    assert (result >= 0).all()
    assert not result[:, 4].any()
    assert result[9].sum() > 0
    assert baseline.name == "gene_mean" or not result[11].any()


def test_seed_decides(baseline, cells):
    counts, _, kinds = cells
    results = [baseline.impute(counts, None, labels=kinds, seed=5) for _ in range(2)]
    np.testing.assert_array_equal(*results)


def test_refuses_what_is_no_count(baseline, cells):
    counts, _, kinds = cells
    hidden = np.zeros(counts.shape, dtype=bool)
    for value, match in ((-1, "-1"), (np.nan, "nan")):
        wrong = counts.copy()
        wrong[2, 3] = value
        with pytest.raises(ValueError, match=match):
            baseline.impute(wrong, hidden, labels=kinds)
    with pytest.raises(ValueError, match=r"\(150, 60\).*\(149, 60\)"):
        baseline.impute(counts, hidden[1:], labels=kinds)
    with pytest.raises(ValueError, match="int64"):
        baseline.impute(counts, hidden.astype(np.int64), labels=kinds)
    with pytest.raises(ValueError, match=r"\(150,\)"):
        baseline.impute(counts[:, 0], None, labels=kinds)


def test_label_mean_needs_a_label_for_each_cell(cells):
    counts, _, kinds = cells
    with pytest.raises(ValueError, match="none"):
        LabelMean().impute(counts, None)
    with pytest.raises(ValueError, match="150 cells.*149"):
        LabelMean().impute(counts, None, labels=kinds[1:])


def test_knn_of_all_cells_is_the_size_factor_mean(cells):
    counts, _, _ = cells
    everyone = dataclasses.replace(get_baseline("knn"), n_neighbors=1000).impute(counts, None)
    np.testing.assert_allclose(everyone, get_baseline("size_factor_mean").impute(counts, None), rtol=1e-3)


def test_magic_is_the_package_where_nothing_is_missing(cells):
    magic = pytest.importorskip("magic")
    counts, _, _ = cells
    depth = counts.sum(axis=1, keepdims=True)
    expected = magic.MAGIC(random_state=0, verbose=0).fit_transform(np.sqrt(counts * depth.mean() / depth)) ** 2
    expected *= depth / expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(MAGIC("sqrt").impute(counts, None), expected, rtol=1e-4, atol=1e-6)


def test_magic_refuses_other_transforms():
    with pytest.raises(ValueError, match="cube"):
        MAGIC("cube")


def test_magic_says_what_to_install(monkeypatch, cells):
    monkeypatch.setitem(sys.modules, "magic", None)
    with pytest.raises(ImportError, match=r"countsdiff\[baselines\]"):
        MAGIC().fit(cells[0], None)


def test_scvi_is_shown_what_predicts_cells_best_that_it_was_fitted_to(cells, monkeypatch):
    counts, _, _ = cells
    fitted = SCVI(max_epochs=2, n_samples=2).fit(counts, None, seed=1)
    hidden = mcar(counts.shape, 0.5)
    observed = (~hidden).astype(np.float32)
    truth = fitted.complete
    monkeypatch.setattr(type(fitted), "_shown", lambda self, counts, observed, fill: fill)
    for best in ("means", "zeros", "predictions"):
        perfect = lambda self, shown, *cells, best=best: truth if shown == best else truth + 1  # noqa: E731
        monkeypatch.setattr(type(fitted), "_predict", perfect)
        assert fitted.best_fill(observed) == best
    assert fitted.best_fill(np.ones_like(observed)) == "means"  # nothing is missing
    # of cells that were not complete the encoder has learnt to read means
    assert dataclasses.replace(fitted, complete=None).best_fill(observed) == "means"


def test_scvi(cells):
    """Hardly trained: what must hold is the scale, the seed, and that nothing hidden is seen."""
    counts = cells[0].copy()
    counts[11] = 0  # scVI alone would fail on an empty cell
    hidden = mcar(counts.shape, 0.5)
    scvi = SCVI(max_epochs=2, n_samples=2)
    result = scvi.impute(np.where(hidden, 99, counts), hidden, seed=1)
    np.testing.assert_array_equal(result, scvi.impute(np.where(hidden, 0, counts), hidden, seed=1))
    known = ~hidden
    np.testing.assert_allclose((result * known).sum(axis=1), (counts * known).sum(axis=1), rtol=1e-4)
    assert result[hidden].sum() == pytest.approx(counts[hidden].sum(), rel=0.1)
    assert not result[11].any()
