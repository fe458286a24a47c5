"""Fit once, impute many times: what all baselines have in common."""

import numpy as np
import pytest
import torch
from scipy import sparse

from countsdiff.baselines import (
    ALRA,
    GAIN,
    MAGIC,
    SCVI,
    FittedRounder,
    FittedSampler,
    ForestDiffusion,
    GaussianDiffusion,
    GeneMean,
    KNNSmoothing,
    LabelMean,
    NBAutoencoder,
    ReMDM,
    SizeFactorMean,
)
from countsdiff.baselines._base import median_of_draws
from countsdiff.pp import mcar

pytestmark = pytest.mark.filterwarnings("ignore:Detected zero distance")  # six genes: some cells are alike

MEANS = (GeneMean(), SizeFactorMean(), LabelMean())
LAZY = (KNNSmoothing(), MAGIC(), ALRA())
# hardly trained: nothing here depends on how good they are
CONDITIONAL = (
    ReMDM(n_steps=20, width=16),
    GaussianDiffusion(n_steps=20, width=16, n_draws=2),
    GAIN(n_steps=20, width=16),
    ForestDiffusion(n_noise_levels=9, n_copies=1, n_draws=2),
)
TRAINED = (SCVI(max_epochs=2, n_samples=2), NBAutoencoder(n_steps=20), *CONDITIONAL)
SAMPLERS = {"scvi", "nb_autoencoder", "remdm", "gaussian_diffusion", "forest_diffusion"}


def needs(imputer):
    """Skip where the package that the imputer runs is not installed."""
    package = {"magic_sqrt": "magic", "forest_diffusion": "ForestDiffusion"}.get(imputer.name)
    if package:
        pytest.importorskip(package)


def name(imputer):
    return imputer.name


@pytest.fixture(params=MEANS + LAZY + TRAINED, ids=name)
def imputer(request):
    needs(request.param)
    return request.param


@pytest.fixture
def halves(cells):
    """Two halves of the cells, few genes: (counts, hidden, kinds) of each."""
    counts, _, kinds = cells
    counts, hidden = counts[:, :6], mcar((150, 6), 0.4, seed=1)
    return (counts[:100], hidden[:100], kinds[:100]), (counts[100:], hidden[100:], kinds[100:])


def test_one_fit_imputes_many_times(imputer, halves):
    (counts, hidden, kinds), (others, masked, their_kinds) = halves
    fitted = imputer.fit(counts, hidden, labels=kinds, seed=2)
    first = fitted.impute(others, masked, labels=their_kinds)
    assert first.dtype == np.float32
    assert first.shape == others.shape
    assert np.isfinite(first).all()
    assert (first >= 0).all()
    fitted.impute(others[:5], ~masked[:5], labels=their_kinds[:5])
    np.testing.assert_array_equal(first, fitted.impute(others, masked, labels=their_kinds))


def test_impute_is_fit_and_impute_of_the_same_cells(imputer, halves):
    counts, hidden, kinds = halves[0]
    expected = imputer.fit(counts, hidden, labels=kinds, seed=2).impute(counts, hidden, labels=kinds)
    np.testing.assert_array_equal(imputer.impute(counts, hidden, labels=kinds, seed=2), expected)


def test_sparse_counts_are_taken_as_dense_ones(imputer, halves):
    counts, hidden, kinds = halves[0]
    expected = imputer.impute(counts, hidden, labels=kinds)
    result = imputer.impute(sparse.csr_matrix(counts), sparse.csr_matrix(hidden), labels=kinds)
    np.testing.assert_array_equal(result, expected)


def test_nothing_behind_missing_entries_is_seen(imputer, halves):
    (counts, hidden, kinds), (others, masked, their_kinds) = halves
    results = []
    for value in (0, np.nan, 99):
        fitted = imputer.fit(np.where(hidden, value, counts), hidden, labels=kinds, seed=2)
        results.append(fitted.impute(np.where(masked, value, others), masked, labels=their_kinds))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_other_genes_are_refused(imputer, halves):
    counts, hidden, kinds = halves[0]
    fitted = imputer.fit(counts, hidden, labels=kinds)
    with pytest.raises(ValueError, match="6 genes.*5"):
        fitted.impute(counts[:, 1:], hidden[:, 1:], labels=kinds)


@pytest.mark.parametrize("imputer", TRAINED, ids=name)
def test_who_can_sample_draws_counts(imputer, halves):
    needs(imputer)
    (counts, hidden, _), (others, masked, _) = halves
    fitted = imputer.fit(counts, hidden)
    assert isinstance(fitted, FittedSampler) == (imputer.name in SAMPLERS)
    if imputer.name not in SAMPLERS:
        return
    masked = masked.copy()
    masked[:3] = True  # nothing at all is known of these: they are generated
    draws = fitted.sample(others, masked, 3, seed=4)
    assert draws.dtype == np.float32
    assert draws.shape == (3, *others.shape)
    assert (draws >= 0).all()
    np.testing.assert_array_equal(draws, np.round(draws))
    assert draws[:, :3].sum() > 0
    assert (draws[0] != draws[1]).any()
    np.testing.assert_array_equal(draws, fitted.sample(np.where(masked, 99, others), masked, 3, seed=4))
    assert (draws != fitted.sample(others, masked, 3, seed=5)).any()


@pytest.mark.parametrize("imputer", CONDITIONAL, ids=name)
def test_conditional_methods_return_what_is_observed(imputer, halves):
    needs(imputer)
    counts, hidden, _ = halves[0]
    fitted = imputer.fit(counts, hidden)
    np.testing.assert_array_equal(fitted.impute(counts, hidden)[~hidden], counts[~hidden])
    np.testing.assert_array_equal(fitted.impute(counts, None), counts)
    if isinstance(fitted, FittedSampler):
        np.testing.assert_array_equal(fitted.sample(counts, hidden, 1)[0][~hidden], counts[~hidden])


@pytest.mark.parametrize("imputer", [NBAutoencoder(n_steps=20), *CONDITIONAL], ids=name)
def test_the_global_generators_are_left_alone(imputer, halves):
    needs(imputer)
    counts, hidden, _ = halves[0]
    torch.manual_seed(3)
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    imputer.impute(counts, hidden)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002


@pytest.mark.parametrize("imputer", [NBAutoencoder(n_steps=20), *CONDITIONAL], ids=name)
def test_cells_and_genes_that_are_never_observed(imputer, halves):
    needs(imputer)
    counts, hidden, _ = halves[0]
    hidden = hidden.copy()
    hidden[:, 4] = hidden[9] = True
    result = imputer.impute(counts, hidden)
    assert np.isfinite(result).all()
    assert result[9].sum() > 0
    with pytest.raises(ValueError, match="learn from"):
        imputer.fit(counts, np.ones_like(hidden))


@pytest.mark.parametrize("imputer", LAZY, ids=name)
def test_lazy_methods_pool_other_cells_with_those_kept(imputer, halves):
    needs(imputer)
    (counts, hidden, _), (others, masked, _) = halves
    pooled = imputer.impute(np.concatenate([counts, others]), np.concatenate([hidden, masked]), seed=2)
    np.testing.assert_array_equal(imputer.fit(counts, hidden, seed=2).impute(others, masked), pooled[100:])


def test_means_of_other_cells_are_those_fitted(halves):
    (counts, hidden, kinds), (others, masked, their_kinds) = halves
    known = np.where(hidden, 0, counts)
    gene_means = known.sum(0) / (~hidden).sum(0)
    result = GeneMean().fit(counts, hidden).impute(others, masked)
    np.testing.assert_allclose(result, np.tile(gene_means, (50, 1)), rtol=1e-5)
    one = SizeFactorMean().fit(counts, hidden).impute(others, masked)
    two = SizeFactorMean().fit(counts, hidden).impute(others[:7], masked[:7])
    np.testing.assert_allclose(one[:7], two, rtol=1e-6)
    label_mean = LabelMean().fit(counts, hidden, labels=kinds)
    first = int(np.flatnonzero(their_kinds == 1)[0])
    np.testing.assert_allclose(
        label_mean.impute(others, masked, labels=their_kinds)[first],
        label_mean.impute(others[[first]], masked[[first]], labels=[1])[0],
        rtol=1e-6,
    )
    # of a label that was not fitted: the rates of all cells
    np.testing.assert_allclose(label_mean.impute(others[:2], masked[:2], labels=[9, 1])[0], two[0], rtol=1e-5)


@pytest.mark.parametrize("rival", [NBAutoencoder, GAIN, GaussianDiffusion, ReMDM])
def test_no_steps_are_no_training(halves, rival):
    counts, hidden, _ = halves[0]
    with pytest.raises(ValueError, match="n_steps is a whole number, at least 1; got 0"):
        rival(n_steps=0).fit(counts, hidden)


@pytest.mark.parametrize("imputer", TRAINED, ids=name)
def test_who_knows_a_law_gives_whole_numbers_of_it(imputer, halves):
    needs(imputer)
    (counts, hidden, kinds), (others, masked, their_kinds) = halves
    fitted = imputer.fit(counts, hidden, labels=kinds, seed=2)
    assert isinstance(fitted, FittedRounder) == isinstance(fitted, FittedSampler)
    if isinstance(fitted, FittedRounder):
        whole = fitted.impute_whole(others, masked, labels=their_kinds)
        assert whole.dtype == np.float32
        np.testing.assert_array_equal(whole, np.rint(whole))
        np.testing.assert_array_equal(whole, fitted.impute_whole(others, masked, labels=their_kinds))
        if imputer.name in ("nb_autoencoder", "scvi"):  # draws of the others are on paths, the law is of one pass
            # a median: no draw in two is above it, none below; up to the noise of 400 draws
            draws = fitted.sample(others, masked, 400, labels=their_kinds, seed=1)[:, masked]
            above, below = (draws > whole[masked]).mean(0), (draws < whole[masked]).mean(0)
            allowed = 0.6 if imputer.name == "nb_autoencoder" else 1.0  # scVI's is the median of two draws here
            assert max(above.max(), below.max()) <= allowed


def test_median_of_draws():
    draws = np.array([[[3.0, 1.0]], [[0.0, 1.0]], [[9.0, 2.0]]], dtype=np.float32)
    np.testing.assert_array_equal(median_of_draws(draws), [[3.0, 1.0]])
    np.testing.assert_array_equal(median_of_draws(draws[:2]), [[0.0, 1.0]])
