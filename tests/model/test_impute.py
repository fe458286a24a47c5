"""What impute and denoise promise, whatever the network has learnt."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from countsdiff import CountsDiffImputer


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


@pytest.mark.parametrize("output", ["mean", "median", "log_mean", "sample"])
def test_observed_entries_come_back_identical(trained, query, hidden, output):
    imputed = trained.impute(query, output=output, inplace=False)
    np.testing.assert_array_equal(imputed[~hidden], dense(query.X)[~hidden])
    assert (imputed[hidden] >= 0).all()


def test_missing_entries_are_not_looked_at(trained, query, hidden):
    before = trained.impute(query, inplace=False)
    poisoned = dense(query.X).copy()
    poisoned[hidden] = 777
    query.X = poisoned
    after = trained.impute(query, inplace=False)
    np.testing.assert_array_equal(before[hidden], after[hidden])


def test_samples_are_whole_numbers_and_seeded(trained, query, hidden):
    draw = trained.impute(query, output="sample", inplace=False, seed=1)
    again = trained.impute(query, output="sample", inplace=False, seed=1)
    other = trained.impute(query, output="sample", inplace=False, seed=2)
    np.testing.assert_array_equal(draw, np.round(draw))
    np.testing.assert_array_equal(draw, again)
    assert (draw[hidden] != other[hidden]).any()


@pytest.mark.parametrize("options", [{}, {"output": "sample", "n_steps": 3, "attrition": 0.2}], ids=["mean", "sample"])
def test_result_does_not_depend_on_batches_or_neighbours(trained, query, options):
    whole = trained.impute(query, inplace=False, **options)
    np.testing.assert_array_equal(whole, trained.impute(query, inplace=False, batch_size=7, **options))
    order = np.random.default_rng(0).permutation(query.n_obs)[:20]
    np.testing.assert_array_equal(whole[order], trained.impute(query, indices=order, inplace=False, **options))
    subset = query[order].copy()
    np.testing.assert_array_equal(whole[order], trained.impute(subset, inplace=False, **options))


def test_cells_that_share_a_name_draw_their_own_numbers(trained, query):
    query.X = np.repeat(dense(query.X)[:1], query.n_obs, axis=0)
    query.obs_names = ["same"] * query.n_obs
    for column in query.obs:
        query.obs[column] = query.obs[column].iloc[0]
    draws = trained.impute(query, missing="all", output="sample", inplace=False)
    assert len(np.unique(draws, axis=0)) > query.n_obs / 2


def test_genes_in_another_order_are_aligned_by_name(trained, query, hidden):
    expected = trained.impute(query, inplace=False)
    order = np.random.default_rng(1).permutation(query.n_vars)
    shuffled = query[:, order].copy()
    trained.impute(shuffled)
    assert shuffled.layers["imputed"].shape == shuffled.shape
    np.testing.assert_array_equal(dense(shuffled.layers["imputed"]), expected[:, order])


def test_marks_of_missing_entries_in_every_form(trained, make_adata, hidden):
    expected = trained.impute(make_adata(), missing=hidden, inplace=False)
    by_sparse = trained.impute(make_adata(), missing=sparse.coo_matrix(hidden), inplace=False)
    by_layer = make_adata()
    by_layer.layers["holes"] = hidden.astype(int)
    by_nan = make_adata()
    counts = dense(by_nan.X).copy()
    counts[hidden] = np.nan
    by_nan.X = counts
    np.testing.assert_array_equal(expected, by_sparse)
    np.testing.assert_array_equal(expected, trained.impute(by_layer, missing="holes", inplace=False))
    np.testing.assert_array_equal(expected, trained.impute(by_nan, inplace=False))


def test_without_missing_entries_zeros_are_estimated_and_counts_kept(trained, make_adata):
    adata = make_adata()
    counts = dense(adata.X)
    imputed = trained.impute(adata, inplace=False)
    np.testing.assert_array_equal(imputed[counts > 0], counts[counts > 0])
    assert (imputed[counts == 0] > 0).all()
    np.testing.assert_array_equal(imputed, trained.impute(adata, missing="zeros", inplace=False))
    # a zero is evidence for a low rate: hiding it can only raise the estimate, on average
    at_zeros = trained.impute(adata, missing=counts == 0, inplace=False)[counts == 0]
    assert imputed[counts == 0].mean() < at_zeros.mean()


def test_all_is_denoise(trained, make_adata):
    adata = make_adata()
    everything = trained.impute(adata, missing="all", inplace=False)
    np.testing.assert_array_equal(everything, trained.denoise(adata, inplace=False))
    trained.denoise(adata, depth=0.5, key_added="half")
    np.testing.assert_allclose(dense(adata.layers["half"]), everything / 2, rtol=1e-6)


def test_layers_and_provenance(trained, query, hidden):
    before = dense(query.X).copy()
    assert trained.impute(query, output="sample", n_samples=2, seed=5, return_std=True, interval=0.8) is None
    np.testing.assert_array_equal(dense(query.X), before)
    record = query.uns["countsdiff"]["imputed"]
    assert record["n_imputed"] == hidden.sum()
    assert record["seed"] == 5
    assert record["output"] == "sample"
    assert record["interval"] == 0.8
    assert {"imputed_0", "imputed_1", "imputed_std", "imputed_lower", "imputed_upper"} <= set(query.layers)
    trained.denoise(query)
    assert set(query.uns["countsdiff"]) == {"imputed", "denoised"}
    stacked = trained.impute(query, output="sample", n_samples=2, seed=5, inplace=False)
    assert stacked.shape == (2, *query.shape)
    np.testing.assert_array_equal(stacked[1], dense(query.layers["imputed_1"]))
    assert (stacked[0] != stacked[1]).any()


def test_indices_in_place_leave_other_cells_alone(trained, query, hidden):
    trained.impute(query, indices=[3, 1])
    layer = dense(query.layers["imputed"])
    expected = trained.impute(query, inplace=False)
    np.testing.assert_array_equal(layer[[3, 1]], expected[[3, 1]])
    others = np.setdiff1d(np.arange(query.n_obs), [3, 1])
    assert np.isnan(layer[others][hidden[others]]).all()
    np.testing.assert_array_equal(layer[others][~hidden[others]], dense(query.X)[others][~hidden[others]])


def test_a_data_frame_of_missing_entries_goes_by_its_names(trained, query, hidden):
    frame = pd.DataFrame(hidden, query.obs_names, query.var_names)
    by_name, by_place = (
        trained.impute(query, missing=missing, inplace=False) for missing in (frame.iloc[::-1, ::-1], hidden)
    )
    np.testing.assert_array_equal(by_name, by_place)
    with pytest.raises(ValueError, match="lacks the gene"):
        trained.impute(query, missing=frame.iloc[:, 1:])


def test_what_was_not_asked_for_has_no_spread(trained, query, hidden):
    answers = trained.impute(query, indices=slice(0, 2), return_std=True, interval=0.9)
    assert answers is None
    left_out = hidden.copy()
    left_out[:2] = False
    for name in ("imputed", "imputed_std", "imputed_lower"):
        layer = query.layers[name]
        layer = layer.toarray() if sparse.issparse(layer) else layer
        np.testing.assert_array_equal(np.isnan(layer), left_out)


def test_std_and_interval_are_those_of_the_negative_binomial(trained, query, hidden):
    result = trained.impute(query, inplace=False, return_std=True, interval=0.9)
    mean, std = (result[k][hidden].astype(float) for k in ("imputed", "imputed_std"))
    shape = mean**2 / (std**2 - mean)
    law = stats.nbinom(shape, shape / (shape + mean))
    assert (result["imputed_std"][~hidden] == 0).all()
    np.testing.assert_array_equal(result["imputed_lower"][~hidden], dense(query.X)[~hidden])
    lower, upper = result["imputed_lower"][hidden], result["imputed_upper"][hidden]
    # shapes recovered from float32 moments are a little off
    assert (law.cdf(upper) - law.cdf(lower - 1) > 0.9 - 1e-4).all()
    shorter = law.cdf(upper - 1) - law.cdf(lower - 1), law.cdf(upper) - law.cdf(lower)
    assert (np.maximum(*shorter) < 0.9 + 1e-4).all()
    median = trained.impute(query, output="median", inplace=False)[hidden]
    assert np.mean(median == law.ppf(0.5)) > 0.98


@pytest.mark.parametrize("n_steps", [1, 4])
def test_one_step_samples_follow_the_predicted_law(trained, query, hidden, n_steps):
    mean = trained.impute(query, inplace=False)[hidden]
    draws = trained.impute(query, output="sample", n_samples=60, n_steps=n_steps, inplace=False)[:, hidden]
    # the total over entries and draws: exact in mean for one step, and close for several
    error = draws.sum() / (60 * mean.sum()) - 1
    assert abs(error) < (0.02 if n_steps == 1 else 0.1)


def test_guidance(trained, query):
    conditional = trained.impute(query, inplace=False)
    unconditional = trained.impute(query, guidance_scale=0.0, inplace=False)
    guided = trained.impute(query, guidance_scale=2.0, inplace=False)
    at = conditional != unconditional
    assert at.any()
    expected = np.exp(2 * np.log(conditional[at]) - np.log(unconditional[at]))
    np.testing.assert_allclose(guided[at], expected, rtol=1e-4)


def test_log_mean_keeps_the_depth_of_the_mean(trained, query, hidden):
    # the same molecules, moved from small values (below their means by Jensen's inequality) to large ones
    log_mean = trained.impute(query, output="log_mean", inplace=False)
    mean = trained.impute(query, inplace=False)
    np.testing.assert_allclose(log_mean.sum(1), mean.sum(1), rtol=1e-4)
    assert np.array_equal(log_mean[~hidden], mean[~hidden])
    assert not np.allclose(log_mean, mean, rtol=0.01)


def test_log_mean_of_zeros_keeps_the_depth_too(trained, make_adata):
    adata = make_adata()
    log_mean, mean = (trained.impute(adata, missing="zeros", output=o, inplace=False) for o in ("log_mean", "mean"))
    np.testing.assert_allclose(log_mean.sum(1), mean.sum(1), rtol=1e-4)


@pytest.mark.parametrize("rule", ["zeros", "all"])
def test_log_mean_of_observed_entries_reaches_missing_ones_too(trained, query, hidden, rule):
    log_mean, mean = (trained.impute(query, missing=rule, output=o, inplace=False) for o in ("log_mean", "mean"))
    # the observed ones, and the missing ones, each as many counts as the mean: none are given to the others
    for entries in (hidden, ~hidden):
        sums = [np.where(entries, answer, 0).sum(1) for answer in (log_mean, mean)]
        np.testing.assert_allclose(*sums, rtol=1e-4)
    assert (log_mean[hidden] > 0).mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "mode"}, "mode"),
        ({"n_samples": 0}, "n_samples"),
        ({"n_samples": 2}, "output='sample'"),
        ({"interval": 1.5}, "interval"),
        ({"attrition": 2.0}, "Attrition"),
        ({"n_steps": 0, "output": "sample"}, "n_steps=0"),
        ({"method": "magic"}, "magic"),
        ({"missing": np.zeros((2, 2), bool)}, r"\(2, 2\)"),
        ({"missing": "nowhere"}, "nowhere"),
        ({"guidance_scale": float("nan")}, "scale of guidance"),
        ({"indices": ["cell0"]}, "positions of cells"),
        ({"indices": []}, "names no cells"),
    ],
)
def test_bad_arguments_are_named(trained, query, arguments, message):
    with pytest.raises((ValueError, KeyError, TypeError), match=message):
        trained.impute(query, **arguments)
    assert "imputed" not in query.layers


def test_marks_must_be_boolean(trained, query):
    with pytest.raises(ValueError, match="boolean"):
        trained.impute(query, missing=dense(query.X))


def test_not_trained_yet(make_adata):
    with pytest.raises(RuntimeError, match="train"):
        CountsDiffImputer(make_adata()).impute()


def test_layers_of_an_earlier_result_that_go_are_named(trained, query):
    trained.impute(query, output="sample", n_samples=2, key_added="draw")
    with pytest.warns(UserWarning, match="Removed draw_0, draw_1, of an earlier result named 'draw'"):
        trained.impute(query, key_added="draw")
    assert "draw_0" not in query.layers


def test_a_query_without_the_marks_of_missing_entries_is_warned_of(trained, query):
    del query.layers["hidden"]
    with pytest.warns(UserWarning, match="adata.layers has no 'hidden', which marked missing entries in training"):
        trained.impute(query)
    assert query.uns["countsdiff"]["imputed"]["n_cells"] == query.n_obs
    with pytest.warns(UserWarning, match="no 'hidden', which marked"):
        CountsDiffImputer.load_query_data(query, trained)


@pytest.mark.filterwarnings("error")
def test_marks_that_are_given_need_no_layer(trained, query):
    hidden = query.layers.pop("hidden")
    trained.impute(query, missing=hidden)
