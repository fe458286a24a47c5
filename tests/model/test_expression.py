"""Expression, replicates and differential expression with scvi-tools' arguments."""

import inspect

import numpy as np
import pandas as pd
import pytest
import scvi
from scipy import sparse
from scvi.criticism import PosteriorPredictiveCheck

from countsdiff import CountsDiffImputer, metrics


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def test_expression_is_the_denoised_mean_at_a_common_depth(trained, query):
    rates = trained.denoise(query, inplace=False)
    table = trained.get_normalized_expression(query, library_size="latent")
    assert list(table.index) == list(query.obs_names)
    np.testing.assert_allclose(table, rates)
    np.testing.assert_allclose(trained.get_normalized_expression(query).sum(1), 1.0, rtol=1e-5)
    part = trained.get_normalized_expression(query, [4, 2], gene_list=["gene7", "gene3"], library_size=100)
    expected = 100 * rates / rates.sum(1, keepdims=True)
    np.testing.assert_allclose(part, expected[[4, 2]][:, [7, 3]], rtol=1e-5)
    assert list(part.columns) == ["gene7", "gene3"]


def test_draws_of_expression_have_the_posterior(trained, query):
    moments = trained.denoise(query, indices=range(5), inplace=False, return_std=True)
    draws = trained.get_normalized_expression(
        query, range(5), library_size="latent", n_samples=400, return_mean=False, seed=1
    )
    assert draws.shape == (400, 5, 30)
    mean, variance = moments["denoised"], moments["denoised_std"] ** 2 - moments["denoised"]  # of the rate
    z = (draws.mean(0) - mean) / np.sqrt(variance / 400)
    assert np.abs(z).max() < 4.5
    np.testing.assert_allclose(draws.var(0).sum(), variance.sum(), rtol=0.1)
    averaged = trained.get_normalized_expression(query, range(5), library_size="latent", n_samples=400, seed=1)
    np.testing.assert_allclose(averaged, draws.mean(0), rtol=1e-4)


def test_batches_are_transformed_and_averaged(trained, query):
    as_x, as_y, both = (trained.get_normalized_expression(query, transform_batch=b) for b in ("x", "y", ["x", "y"]))
    in_x = (query.obs["batch"] == "x").to_numpy()
    own = trained.get_normalized_expression(query)
    np.testing.assert_array_equal(own[in_x], as_x[in_x])
    assert (own[~in_x] != as_x[~in_x]).any(axis=None)
    np.testing.assert_allclose(both, (as_x + as_y) / 2, rtol=1e-4)  # a batch that is deeper weighs no more
    assert (as_x != as_y).any(axis=None)


def test_predictive_samples_are_replicates(trained, query):
    draws = trained.posterior_predictive_sample(query, n_samples=3, seed=2)
    assert draws.shape == (90, 30, 3)
    expected = trained.denoise(query, output="sample", n_samples=3, seed=2, inplace=False)
    np.testing.assert_array_equal(np.moveaxis(draws.todense(), 2, 0), expected)
    one = trained.posterior_predictive_sample(query, [3, 1], gene_list=["gene2"], seed=2)
    np.testing.assert_array_equal(one.todense()[:, 0], expected[0][[3, 1], 2])


def test_scvi_criticism_takes_the_model(make_adata, train):
    adata = make_adata()
    adata.X = adata.X.astype(int)  # scvi-tools 1.4.2 fails on sparse counts of type float
    model = train(adata)
    check = PosteriorPredictiveCheck(adata, {"countsdiff": model}, n_samples=2)
    check.coefficient_of_variation()
    table = check.metrics["cv_gene"]
    assert np.corrcoef(table["countsdiff"], table["Raw"])[0, 1] > 0.8


def test_arguments_are_those_of_scvi_tools():
    known = {"self", "adata", "indices", "transform_batch", "gene_list", "n_samples", "batch_size"}
    for name in ("get_normalized_expression", "posterior_predictive_sample"):
        ours, theirs = (inspect.signature(getattr(c, name)).parameters for c in (CountsDiffImputer, scvi.model.SCVI))
        assert known <= set(ours)
        assert set(ours) - {"seed"} <= set(theirs)
        shared = [p for p in theirs if p in ours]
        assert shared == [p for p in ours if p in theirs]  # same order: positional calls work


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gene_list": ["gene1", "nope"]}, "'nope'"),
        ({"transform_batch": "q"}, r"'q' is unknown.*'x', 'y', 'z'"),
        ({"transform_batch": []}, "no batch"),
    ],
)
def test_unknown_names(trained, query, arguments, message):
    for method in (trained.get_normalized_expression, trained.posterior_predictive_sample):
        with pytest.raises(ValueError, match=message):
            method(query, **arguments)


def test_batches_may_be_numbers(make_adata, train):
    adata = make_adata()
    adata.obs["lane"] = np.arange(adata.n_obs) % 2
    model = train(adata, batch_key="lane")
    one, other = (model.get_normalized_expression(transform_batch=batch) for batch in (adata.obs["lane"].iloc[1], [1]))
    pd.testing.assert_frame_equal(one, other)
    assert model.generate(3, batch=0).obs["lane"].dtype == adata.obs["lane"].dtype  # or it could not be written


def test_a_replicate_belongs_to_one_batch(trained, query):
    with pytest.raises(ValueError, match="transform_batch names 2"):
        trained.posterior_predictive_sample(query, transform_batch=np.array(["x", "y"]))


def test_differences_are_pooled_by_rubins_rules(trained, query, hidden):
    table = trained.differential_expression(query, "kind", "a", n_imputations=3, seed=5)
    is_a = (query.obs["kind"] == "a").to_numpy()
    estimates, variances, df = [], [], []
    for draw in trained.impute(query, output="sample", n_samples=3, seed=5, inplace=False):
        x = metrics.log_normalise(draw)
        groups = x[is_a], x[~is_a]
        own, squares = zip(*((len(g) - 1, (len(g) - 1) * g.var(0, ddof=1)) for g in groups), strict=True)
        common = sum(squares) / sum(own)  # as ten more cells of each group would have it
        parts = [(s + 10 * common) / (n + 10) / (n + 1) for n, s in zip(own, squares, strict=True)]
        estimates.append(groups[0].mean(0) - groups[1].mean(0))
        variances.append(sum(parts))
        welch = sum(parts) ** 2 / sum(part**2 / (n + 10) for part, n in zip(parts, own, strict=True))
        df.append(np.minimum(welch, sum(own)))
    pooled = metrics.pool_imputations(estimates, variances, np.mean(df, axis=0))
    np.testing.assert_allclose(table["difference"], pooled.estimate)
    np.testing.assert_allclose(table["std_error"] ** 2, pooled.variance)
    np.testing.assert_allclose(table["df"], pooled.df)
    np.testing.assert_allclose(table["p_value"], pooled.p_value)
    assert list(table.index) == list(query.var_names)
    assert (table["p_adjusted"] >= table["p_value"]).all()
    assert table["missing_information"].between(0, 1).all()
    assert (table["missing_information"] > 0).any()


def test_neighbouring_seeds_share_no_imputation(trained, query):
    tables = [trained.differential_expression(query, "kind", "a", n_imputations=2, n_steps=1, seed=s) for s in (5, 6)]
    pairs = [set(), set()]
    for seed, draws in zip((5, 6), pairs, strict=True):
        for draw in trained.impute(query, output="sample", n_samples=2, n_steps=1, seed=seed, inplace=False):
            draws.add(draw.tobytes())
    assert len(pairs[0] | pairs[1]) == 4
    assert not np.allclose(tables[0]["difference"], tables[1]["difference"])


def test_moments_of_groups_do_not_depend_on_the_blocks(trained, query):
    whole, parts = (
        trained.differential_expression(query, "kind", n_imputations=2, n_steps=1, batch_size=size) for size in (90, 7)
    )
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-9)


def test_every_group_against_the_rest_or_another(trained, query):
    table = trained.differential_expression(query, "batch", n_imputations=2, n_steps=1)
    assert set(table["group1"]) == {"x", "y", "z"}
    assert len(table) == 90
    x, y = (trained.differential_expression(query, "batch", *g, n_imputations=2, n_steps=1) for g in ("xy", "yx"))
    np.testing.assert_allclose(x["difference"], -y["difference"])
    pd.testing.assert_series_equal(x["p_value"], y["p_value"])


@pytest.mark.parametrize(
    ("share", "groups"),
    [(0.02, ["one", "two"] * 80), (0.5, ["one", "two"] * 80), (0.1, ["one"] * 6 + ["two"] * 154)],
    ids=["little missing", "half missing", "few cells"],
)
def test_p_values_are_uniform_or_larger_where_there_is_no_difference(make_adata, train, share, groups):
    # groups drawn at random, forty times: genes of one grouping depend on each other, groupings do not
    adata = make_adata(n_obs=160, n_vars=40)
    adata.layers["hidden"] = np.random.default_rng(1).random(adata.shape) < share
    model = train(adata, max_steps=100, missing_layer="hidden")
    rng = np.random.default_rng(2)
    p_values = []
    for i in range(40):
        adata.obs["group"] = rng.permutation(groups)
        table = model.differential_expression(groupby="group", group1="one", n_imputations=3, n_steps=1, seed=100 * i)
        p_values.append(table["p_value"].to_numpy())
    for level in (0.01, 0.05, 0.5):
        rates = (np.array(p_values) < level).mean(1)
        error = 4 * rates.std() / 40**0.5
        assert rates.mean() < level + error
        # groups that the model does not know, and much to impute: larger than uniform (Meng 1994), by no more than this
        if groups.count("one") == 80:
            assert rates.mean() > level * (0.8 if share == 0.02 else 0.3) - error


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groupby": "nope"}, KeyError, "'nope'"),
        ({"groupby": "kind", "group1": "c"}, ValueError, r"'c'.*\['"),
        ({"groupby": "kind", "n_imputations": 1}, ValueError, "at least 2"),
        ({"groupby": "kind", "missing": "zeros"}, ValueError, "evidence"),
        ({"groupby": "kind", "group1": "b", "group2": "b"}, ValueError, "against itself"),
        ({"groupby": "kind", "group2": ["a", "b"]}, TypeError, "group2 is one group"),
    ],
)
def test_bad_arguments_of_differential_expression(trained, query, arguments, error, message):
    with pytest.raises(error, match=message):
        trained.differential_expression(query, **arguments)


def test_nothing_missing_nothing_pooled(make_adata, trained):
    with pytest.raises(ValueError, match="rank_genes_groups"):
        trained.differential_expression(make_adata(), "kind")
