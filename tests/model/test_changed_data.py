"""Data that are no longer what a model was made with: changed in place, copied, cut."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scvi.model import SCVI

from countsdiff import CountsDiffImputer


def by_name(model, adata):
    return pd.DataFrame(model.impute(adata, missing="zeros", inplace=False), adata.obs_names, adata.var_names)


def test_genes_reordered_in_place_are_found_by_name(make_adata, train):
    adata = make_adata()
    model = train(adata)
    before = by_name(model, adata)
    adata._inplace_subset_var(np.arange(adata.n_vars)[::-1])
    pd.testing.assert_frame_equal(by_name(model, adata)[before.columns], before)
    with pytest.raises(ValueError, match="genes of model.adata are not those it was made with"):
        model.train(max_steps=1)


@pytest.mark.parametrize("change", ["filtered", "renamed"])
def test_the_genes_of_a_model_are_those_it_was_made_with(make_adata, train, change):
    adata = make_adata()
    model = train(adata)
    whole = adata.copy()
    before = by_name(model, whole.copy())
    if change == "filtered":
        adata._inplace_subset_var(np.arange(5))
    else:
        adata.var_names = [f"other{i}" for i in range(adata.n_vars)]
    pd.testing.assert_frame_equal(by_name(model, whole), before)
    assert list(model.generate(2).var_names) == list(whole.var_names)
    with pytest.raises(ValueError, match="The data lack"):
        model.impute(adata)


def test_counts_that_were_normalised_since_are_not_trained_on(make_adata):
    adata = make_adata()
    model = CountsDiffImputer(adata)
    adata.X = np.log1p(adata.X.toarray() * 0.37)
    with pytest.raises(ValueError, match="looks normalised"):
        model.train(max_steps=1)


def test_copies_of_registered_data_are_registered_as_they_are(make_adata, tmp_path):
    adata = make_adata()
    CountsDiffImputer.setup_anndata(adata, labels_key="kind")
    for other in (adata.copy(), adata[:50].copy()):
        model = CountsDiffImputer(other)
        assert model.adata is other
        assert model._setup_args()["labels_key"] == "kind"
    assert CountsDiffImputer(adata).adata is adata  # the original is not taken for its copy
    view = adata[:50]
    assert CountsDiffImputer(view)._setup_args()["labels_key"] == "kind"
    assert not view.is_view


def briefly(model, max_steps=40):
    model.train(max_steps, enable_progress_bar=False, accelerator="cpu")
    return model


def test_models_of_one_object_learn_from_their_own_covariates(make_adata):
    alone = make_adata()
    CountsDiffImputer.setup_anndata(alone, batch_key="kind")
    expected = briefly(CountsDiffImputer(alone)).denoise(inplace=False)
    adata = make_adata()
    CountsDiffImputer.setup_anndata(adata, batch_key="kind")
    first = CountsDiffImputer(adata)
    CountsDiffImputer.setup_anndata(adata, batch_key="batch", continuous_covariate_keys=["age"])
    second = CountsDiffImputer(adata)
    np.testing.assert_array_equal(briefly(first).denoise(inplace=False), expected)
    again = make_adata()
    CountsDiffImputer.setup_anndata(again, batch_key="batch", continuous_covariate_keys=["age"])
    expected = briefly(CountsDiffImputer(again)).denoise(inplace=False)
    np.testing.assert_array_equal(briefly(second).denoise(inplace=False), expected)


@pytest.mark.parametrize("column", ["kind", "batch", "age"])
def test_covariates_are_read_as_they_are(make_adata, train, column):
    adata = make_adata()
    setup = {"labels_key": "kind", "categorical_covariate_keys": ["batch"], "continuous_covariate_keys": ["age"]}
    model = train(adata, **setup)
    before = model.denoise(inplace=False)
    adata.obs[column] = adata.obs[column].to_numpy()[::-1]
    after = model.denoise(inplace=False)
    assert (after != before).any()
    np.testing.assert_array_equal(after, model.denoise(adata.copy(), inplace=False))
    adata.obs[column] = before[:, 0] if column == "age" else "new"
    if column != "age":
        for verb in (model.denoise, lambda: model.train(1)):
            with pytest.raises(ValueError, match=rf"obs\['{column}'\] has 'new', which the model was not trained on"):
                verb()


def test_what_changes_between_set_up_and_model_is_registered_anew(make_adata):
    adata = make_adata()
    CountsDiffImputer.setup_anndata(adata, labels_key="kind")
    older = CountsDiffImputer(adata)
    adata.obs["kind"] = np.where(adata.obs["kind"] == "a", "b", "c")
    newer = CountsDiffImputer(adata)
    known = [list(m._state("labels")["categorical_mapping"]) for m in (older, newer)]
    assert known == [["a", "b"], ["b", "c"]]
    assert set(briefly(newer, 2).design_["kind"]) == {"b", "c"}
    with pytest.raises(ValueError, match="has 'c', which the model was not trained on"):
        older.train(1)


class TestFarCovariates:
    def test_what_told_no_cells_apart_is_unknown(self, make_adata, train):
        adata = make_adata()
        adata.obs["same"], adata.obs["nowhere"] = 30.0, np.nan
        model = train(adata, continuous_covariate_keys=["same", "nowhere"])
        expected = model.denoise(adata.copy(), inplace=False)
        other = adata.copy()
        other.obs["same"], other.obs["nowhere"] = 31.0, 1000.0
        np.testing.assert_array_equal(model.denoise(other, inplace=False), expected)
        query = CountsDiffImputer.load_query_data(other, model, adapt_means=False)
        np.testing.assert_array_equal(query.denoise(inplace=False), expected)

    def test_numbers_far_from_those_of_training_are_taken_for_nearer_ones(self, make_adata, train):
        adata = make_adata()
        model = train(adata, continuous_covariate_keys=["age"])
        mean, std = adata.obs["age"].mean(), adata.obs["age"].std(ddof=0)
        days, edge = adata.copy(), adata.copy()
        days.obs["age"] *= 365.0
        edge.obs["age"] = mean + 4.999999 * std
        with pytest.warns(UserWarning, match=r"obs\['age'\] holds .* far from the .* of training.*\(90 such cells\)"):
            far = model.denoise(days, inplace=False)
        np.testing.assert_allclose(far, model.denoise(edge, inplace=False), rtol=1e-3)


def test_codes_of_another_model_stay_where_they_are(make_adata, train):
    adata, other = make_adata(), make_adata()
    SCVI.setup_anndata(other, batch_key="batch")
    codes, columns = other.obs["_scvi_batch"].copy(), list(other.obs)
    train(adata, batch_key="kind").impute(other)
    pd.testing.assert_series_equal(other.obs["_scvi_batch"], codes)
    assert list(other.obs) == columns


def test_a_result_in_a_view_without_a_name_is_warned_of(make_adata, train):
    adata = make_adata()
    model = train(adata)
    with pytest.warns(UserWarning, match="are a view") as caught:
        model.impute(adata[:20])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="are a view") as caught:
        CountsDiffImputer.setup_anndata(adata[:20])
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.impute(adata[:20], inplace=False)


def test_marks_of_cells_that_share_a_name(make_adata, train, hidden):
    adata = make_adata()
    model = train(adata)
    twins = make_adata()
    twins.obs_names = ["twin"] * twins.n_obs
    marks = pd.DataFrame(hidden, index=twins.obs_names, columns=twins.var_names)
    expected = model.impute(twins, missing=hidden, inplace=False)
    np.testing.assert_array_equal(model.impute(twins, missing=marks, inplace=False), expected)
    with pytest.raises(ValueError, match="cell name 'twin' stands more than once"):
        model.impute(twins, missing=marks.iloc[:, ::-1], inplace=False)
