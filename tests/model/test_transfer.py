"""A model taken to other data says at first what the reference says, but for means of genes, and then learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from countsdiff import CountsDiffImputer
from countsdiff.model._predict import Predictor
from countsdiff.model.missing import resolve_missing
from countsdiff.model.request import Request


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def fine_tune(model, max_steps=20):
    model.train(max_steps=max_steps, batch_size=32, enable_progress_bar=False)


def as_it_is(query, reference):
    """A model of the query that says what the reference says."""
    return CountsDiffImputer.load_query_data(query, reference, adapt_means=False)


def test_known_categories_are_predicted_as_by_the_reference(trained, query):
    expected = trained.impute(query, inplace=False)
    model = as_it_is(query, trained)
    assert model.adata is query
    np.testing.assert_array_equal(model.impute(inplace=False), expected)
    draws = [m.impute(query, output="sample", seed=4, inplace=False) for m in (trained, model)]
    np.testing.assert_array_equal(*draws)


def test_new_batches_start_as_unknown_and_known_ones_stay(trained, query):
    query.obs["batch"] = np.where(np.arange(query.n_obs) < 40, "new", query.obs["batch"])
    model = as_it_is(query, trained)
    predicted = model.impute(inplace=False)
    # the reference asked with the batch of the new cells unknown
    known = query.copy()
    known.obs["batch"] = np.where(known.obs["batch"] == "new", "x", known.obs["batch"])
    for key in [key for key in known.uns if key.startswith("_scvi")]:
        del known.uns[key]
    cells = trained._cells(known)
    categories = cells.categories.clone()
    categories[:40, 0] = -1
    task = resolve_missing(None, known, cells.reader)
    predictor = Predictor(
        trained.module.averaged.module, replace(cells, categories=categories), task, Request(), torch.device("cpu")
    )
    (expected,), _ = predictor(np.arange(query.n_obs), np.ones(query.n_obs, dtype=bool))
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)
    table = model.module.denoiser.backbone.covariates.tables[0].weight
    assert table.shape[0] == 5  # x, y, z, new, unknown
    torch.testing.assert_close(table[3], table[4], rtol=0, atol=0)


def test_a_reference_of_one_batch_takes_another(make_adata, hidden, train):
    adata = make_adata()
    adata.obs["batch"] = "only"
    adata.obs["kind"] = adata.obs["kind"].to_numpy()
    reference = train(adata, batch_key="batch", labels_key="kind", continuous_covariate_keys=["age"])
    expected = reference.impute(missing=hidden, inplace=False)
    query = make_adata()
    query.obs["batch"] = "other"
    model = as_it_is(query, reference)
    np.testing.assert_allclose(model.impute(missing=hidden, inplace=False), expected, rtol=1e-4)
    assert model.module.denoiser.backbone.covariates.n_categories == [2, 2]
    fine_tune(model)
    table = model.module.denoiser.backbone.covariates.tables[0].weight
    assert (table[1] != 0).any()  # the new batch learns
    assert (table[0] == 0).all()  # the absent one does not


def test_genes_in_another_order_absent_or_unknown(trained, query, hidden):
    with_holes = query.copy()
    counts = dense(query.X).copy()
    counts[:, 5:9] = np.nan
    with_holes.X = counts
    expected = trained.impute(with_holes, inplace=False)
    present = np.random.default_rng(0).permutation(np.r_[0:5, 9:30])
    other = query[:, present].copy()
    other.var_names = [*other.var_names[:-1], "unheard of"]
    other.X = sparse.csr_matrix(other.X)
    with pytest.warns(UserWarning, match="1 of the 26 genes are unknown"):
        model = as_it_is(other, trained)
    lost = present[-1]
    counts[:, lost] = np.nan
    with_holes.X = counts
    expected = trained.impute(with_holes, inplace=False)
    assert list(model.adata.var_names) == list(trained.get_var_names())
    model.impute()
    imputed = dense(model.adata.layers["imputed"])
    np.testing.assert_allclose(imputed, expected, rtol=1e-5)
    assert not np.isnan(imputed).any()
    assert other.shape == (90, 26)
    assert list(other.obs) == list(query.obs)


def test_dense_query_like_sparse_query(trained, query):
    part = query[:, 3:].copy()
    as_dense = part.copy()
    as_dense.X = dense(part.X)
    results = [as_it_is(a, trained).impute(inplace=False) for a in (part, as_dense)]
    np.testing.assert_array_equal(*map(dense, results))


@pytest.mark.parametrize("values", [np.arange(2), np.array([0.0, 0.5]), np.array([False, True])])
@pytest.mark.parametrize("key", ["batch_key", "labels_key"])
def test_absent_covariates_that_are_numbers(make_adata, train, tmp_path, values, key):
    reference, query = make_adata(), make_adata()
    reference.obs["of_numbers"] = values[np.arange(reference.n_obs) % 2]
    model = train(reference, **{key: "of_numbers"})
    with pytest.warns(UserWarning, match=r"lacks \['of_numbers'\]"):
        adapted = CountsDiffImputer.load_query_data(query, model)
    assert set(adapted.adata.obs["of_numbers"]) == {"unknown"}
    expected = adapted.impute(inplace=False)
    adapted.save(tmp_path / "model")
    np.testing.assert_array_equal(
        CountsDiffImputer.load(tmp_path / "model", adapted.adata).impute(inplace=False), expected
    )


def test_covariates_that_are_absent_are_unknown(trained, query):
    bare = query.copy()
    bare.obs = bare.obs[[]]
    with pytest.warns(UserWarning, match="'batch', 'kind', 'age'"):
        model = as_it_is(bare, trained)
    np.testing.assert_allclose(
        model.impute(inplace=False), trained.impute(query, guidance_scale=0.0, inplace=False), rtol=1e-5
    )
    assert list(bare.obs) == []


@pytest.fixture(scope="module")
def two_types():
    """Cells of two types that differ tenfold in most genes, and a model that has seen both of them."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(2.0, 4.0, (2, 60)) * np.where(rng.random((2, 60)) < 0.4, 0.1, 1.0)
    adata = AnnData(rng.poisson(rates[np.arange(600) % 2]).astype(np.float32))
    CountsDiffImputer.setup_anndata(adata)
    model = CountsDiffImputer(adata, width=64)
    model.train(max_steps=400, enable_progress_bar=False)
    return model, rates


def caught(model, query):
    """Factors of the means that adapting found, and the loss of imputing before and after."""
    before, after = as_it_is(query.copy(), model), CountsDiffImputer.load_query_data(query.copy(), model)
    losses = [
        sum(
            float(m.module.imputation_loss(b, torch.Generator().manual_seed(0)).sum())
            for b in m._spread(np.arange(m.adata.n_obs))
        )
        for m in (before, after)
    ]
    return (after.module.denoiser.mean / before.module.denoiser.mean).numpy(), *losses


def test_means_follow_another_chemistry(two_types):
    model, rates = two_types
    rng = np.random.default_rng(1)
    factors = rng.choice([0.25, 1.0, 3.0], 60)
    query = AnnData(rng.poisson(rates[rng.integers(2, size=400)] * factors).astype(np.float32))
    found, before, after = caught(model, query)
    found /= np.exp(np.mean(np.log(found / factors)))  # a factor of all genes is depth, which size factors take up
    counted = query.X.sum(0)
    rare = counted < 100  # of the one gene 27 were counted, which says as much: two standard deviations
    np.testing.assert_allclose(found[~rare], factors[~rare], rtol=0.25)
    assert rare.sum() == 1
    assert abs(np.log(found / factors)[rare]) < 2.0 / np.sqrt(counted[rare])
    assert after < 0.5 * before


def test_other_shares_of_types_are_no_other_chemistry(two_types):
    model, rates = two_types
    query = AnnData(np.random.default_rng(1).poisson(rates[np.zeros(400, int)]).astype(np.float32))
    shift = query.X.mean(0) / rates.mean(0)
    assert shift.max() / shift.min() > 5  # what comparing means would have taken for chemistry
    found, before, after = caught(model, query)
    assert np.sqrt(np.mean(np.log(found) ** 2)) < 0.15
    np.testing.assert_allclose(found, 1.0, rtol=0.4)
    assert after < before + 1e-3 * abs(before)


@pytest.mark.parametrize("n_obs", [1, 5])
def test_few_cells_leave_means_alone(two_types, n_obs):
    model, rates = two_types
    query = AnnData(np.random.default_rng(1).poisson(rates[np.arange(n_obs) % 2]).astype(np.float32))
    found, _, _ = caught(model, query)
    np.testing.assert_allclose(found, 1.0, rtol=0.25)


def test_genes_the_query_lacks_keep_their_means(two_types):
    model, rates = two_types
    query = AnnData(np.random.default_rng(1).poisson(3.0 * rates[np.arange(100) % 2]).astype(np.float32)[:, 10:])
    query.var_names = model.adata.var_names[10:]
    adapted = CountsDiffImputer.load_query_data(query, model)
    np.testing.assert_array_equal(adapted.module.denoiser.mean[:10], model.module.denoiser.mean[:10])


def test_adapted_means_are_saved(two_types, tmp_path):
    model, rates = two_types
    query = AnnData(
        np.random.default_rng(1).poisson(rates[::-1][np.arange(100) % 2] * np.linspace(0.3, 3, 60)).astype(np.float32)
    )
    adapted = CountsDiffImputer.load_query_data(query, model)
    missing = np.tile(np.arange(60) < 30, (100, 1))
    expected = adapted.impute(missing=missing, inplace=False)
    adapted.save(tmp_path / "adapted")
    loaded = CountsDiffImputer.load(tmp_path / "adapted", query)
    np.testing.assert_array_equal(loaded.impute(missing=missing, inplace=False), expected)


def test_fine_tuning_learns_and_leaves_the_reference_alone(trained, query, make_adata, tmp_path):
    expected = trained.impute(query, inplace=False)
    trained.save(tmp_path / "reference")
    other = make_adata(seed=7)  # other rates
    other.obs["batch"] = "new"
    model = CountsDiffImputer.load_query_data(other, tmp_path / "reference")
    loader = model._make_data_loader(model.adata, batch_size=90)
    loss = [float(model.module.imputation_loss(next(iter(loader)), torch.Generator().manual_seed(0)).mean())]
    fine_tune(model, 60)
    loss.append(float(model.module.imputation_loss(next(iter(loader)), torch.Generator().manual_seed(0)).mean()))
    assert loss[1] < loss[0] - 0.05
    table = model.module.denoiser.backbone.covariates.tables[0].weight
    assert (table[3] != table[4]).any()
    np.testing.assert_array_equal(trained.impute(query, inplace=False), expected)
    model.save(tmp_path / "tuned")
    loaded = CountsDiffImputer.load(tmp_path / "tuned", model.adata)
    np.testing.assert_array_equal(loaded.impute(inplace=False), model.impute(inplace=False))
    assert loaded.starts_from_reference_


def test_a_reference_that_never_saw_known_counts_cannot_adapt_means(make_adata, train, tmp_path):
    reference = CountsDiffImputer(make_adata(), width=32)
    reference.train(3, share_hidden=1.0, enable_progress_bar=False, accelerator="cpu")
    reference.save(tmp_path / "model")
    for each in (reference, tmp_path / "model"):
        with pytest.raises(ValueError, match=r"trained with share_hidden=1.*adapt_means=False"):
            CountsDiffImputer.load_query_data(make_adata(), each)
        query = CountsDiffImputer.load_query_data(make_adata(), each, adapt_means=False)
        assert query.share_hidden_ == 1.0


def test_foreign_genes_are_refused(trained, query):
    query.var_names = [f"other{i}" for i in range(query.n_vars)]
    with pytest.raises(ValueError, match="none of the 30 genes"):
        CountsDiffImputer.load_query_data(query, trained)


def test_untrained_reference_is_refused(make_adata, query):
    with pytest.raises(RuntimeError, match="train"):
        CountsDiffImputer.load_query_data(query, CountsDiffImputer(make_adata()))


def test_training_on_a_query_keeps_its_history(trained, query):
    model = CountsDiffImputer.load_query_data(query, trained)
    assert model.history is None
    model.train(3, enable_progress_bar=False, accelerator="cpu")
    assert len(model.history["train_loss"]) == 3
    model.train(2, enable_progress_bar=False, accelerator="cpu")
    assert len(model.history["train_loss"]) == 5


@pytest.mark.parametrize(("known", "new", "remedy"), [("1", 1, r"astype\(str\)"), (1, "1", r"astype\(int\)")])
def test_the_number_one_is_not_a_new_batch_beside_the_text(make_adata, train, known, new, remedy):
    adata, other = make_adata(), make_adata(seed=1)
    adata.obs["run"], other.obs["run"] = np.where(adata.obs["kind"] == "a", known, type(known)(2)), new
    with pytest.raises(ValueError, match=rf"has {new!r}, the reference {known!r}: .*{remedy}"):
        CountsDiffImputer.load_query_data(other, train(adata, max_steps=2, batch_key="run"))
