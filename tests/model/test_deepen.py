"""Virtual depth: observed counts plus the births of further looks."""

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from countsdiff import CountsDiffImputer, datasets, metrics
from countsdiff.core import Intensity
from countsdiff.counts import CellReader
from countsdiff.model._predict import Cells, Predictor
from countsdiff.model.missing import DEEPEN
from countsdiff.model.request import Request


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def test_thinned_back_deepened_cells_follow_the_law_of_the_cells():
    # x ~ NegBin(r, μ) with the exact posterior for a denoiser: x + births ~ NegBin(r, kμ), thinned by 1/k NegBin(r, μ)
    r, mu, depth, shape = 1.5, 2.0, 4.0, (4000, 5)
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(r, mu / r, size=shape)).astype(np.float32)

    def posterior(x_t, p, context):
        seen = r + context.counts + x_t
        return Intensity(mu * seen / (r + mu), seen)

    cells = Cells(CellReader(x), np.arange(len(x)), torch.zeros(len(x), 0, dtype=torch.int64), torch.zeros(len(x), 0))
    predictor = Predictor(posterior, cells, DEEPEN, Request("sample", depth=depth), torch.device("cpu"))
    (deepened,), _ = predictor(np.arange(len(x)), np.ones(len(x), dtype=bool))
    assert (deepened >= x).all()
    for sample, mean in ((deepened, depth * mu), (rng.binomial(deepened.astype(int), 1 / depth), mu)):
        law = stats.nbinom(r, r / (r + mean))
        observed = np.bincount(np.minimum(sample.astype(int).ravel(), 15), minlength=16)
        expected = np.append(law.pmf(np.arange(15)), law.sf(14)) * sample.size
        assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_mean_is_the_counts_and_the_births_of_the_other_looks(trained, make_adata):
    adata = make_adata()
    intensity = trained.denoise(adata, inplace=False)
    deepened = trained.deepen(adata, depth=3, inplace=False)
    np.testing.assert_allclose(deepened, dense(adata.X) + 2 * intensity, rtol=1e-5)
    np.testing.assert_array_equal(trained.deepen(adata, depth=1, inplace=False), dense(adata.X))


def test_missing_entries_get_all_their_counts_from_the_model(trained, query, hidden):
    intensity = trained.denoise(query, inplace=False)
    deepened = trained.deepen(query, depth=3, inplace=False)
    np.testing.assert_allclose(deepened[hidden], 3 * intensity[hidden], rtol=1e-5)


def test_samples_are_whole_and_only_add(trained, make_adata):
    adata = make_adata()
    counts = dense(adata.X)
    draws = trained.deepen(adata, output="sample", n_samples=50, inplace=False)
    assert (draws >= counts).all()
    np.testing.assert_array_equal(draws, np.round(draws))
    mean = trained.deepen(adata, inplace=False)
    assert abs((draws.mean(0) - counts).sum() / (mean - counts).sum() - 1) < 0.02


def test_log_mean_is_nearest_to_deeper_cells_once_normalised_and_logged(trained, make_adata):
    adata = make_adata()
    draws = trained.deepen(adata, depth=2, output="sample", n_samples=200, inplace=False)
    draws = np.stack([metrics.log_normalise(draw) for draw in draws])
    mean, log_mean = (trained.deepen(adata, depth=2, output=o, inplace=False) for o in ("mean", "log_mean"))
    np.testing.assert_allclose(log_mean.sum(1), mean.sum(1), rtol=1e-4)
    assert (log_mean >= dense(adata.X)).all()
    undeepened = trained.deepen(adata, depth=1, output="log_mean", inplace=False)
    np.testing.assert_array_equal(undeepened, dense(adata.X))
    errors = [np.square(metrics.log_normalise(answer) - draws).mean() for answer in (log_mean, mean, draws[0])]
    assert errors == sorted(errors)


def test_spread_is_that_of_the_births(trained, make_adata):
    adata = make_adata()
    result = trained.deepen(adata, depth=2, return_std=True, interval=0.8, inplace=False)
    births = trained.denoise(adata, return_std=True, interval=0.8, inplace=False)
    np.testing.assert_allclose(result["deepened_std"], births["denoised_std"], rtol=1e-5)
    np.testing.assert_array_equal(result["deepened_upper"], dense(adata.X) + births["denoised_upper"])


def test_layer_and_record(trained, make_adata):
    adata = make_adata()
    trained.deepen(adata, depth=2.5)
    assert adata.layers["deepened"].shape == adata.shape
    assert adata.uns["countsdiff"]["deepened"]["depth"] == 2.5


@pytest.mark.parametrize(("arguments", "message"), [({"depth": 0.5}, "at least 1"), ({"output": "median"}, "median")])
def test_bad_arguments_are_named(trained, query, arguments, message):
    with pytest.raises(ValueError, match=message):
        trained.deepen(query, **arguments)


def test_thinned_blood_cells_get_back_what_they_had(train):
    # half of the molecules of 400 genes taken away: what the other half was is known
    adata = datasets.pbmc3k()[::2, :400].copy()
    full = dense(adata.X).astype(int)
    half = np.random.default_rng(0).binomial(full, 0.5).astype(np.float32)
    adata.X = sparse.csr_matrix(half)
    del adata.layers["counts"]
    model = train(adata, max_steps=150)
    mean = model.deepen(depth=2, inplace=False)
    assert metrics.rmse(full.ravel(), mean.ravel()) < 0.98 * metrics.rmse(full.ravel(), 2 * half.ravel())
    sample = model.deepen(depth=2, output="sample", inplace=False)
    assert abs(sample.sum() / full.sum() - 1) < 0.02
    # genes detected in every cell: scaling finds none that were not there before
    detected, deepened, scaled = ((m > 0).sum(1) for m in (full, sample, half))
    assert metrics.rmse(detected, deepened) < 0.6 * metrics.rmse(detected, scaled)
    # the distribution of every gene over cells: scaling knows even numbers only
    distances = [metrics.wasserstein_1d(full, m).mean() for m in (sample, 2 * half)]
    assert distances[0] < 0.6 * distances[1]


def test_untrained_models_do_not_deepen(make_adata):
    with pytest.raises(RuntimeError, match="train"):
        CountsDiffImputer(make_adata()).deepen()
