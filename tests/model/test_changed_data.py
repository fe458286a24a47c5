"""Data that are no longer what a model was made with: changed in place, copied, cut."""

import numpy as np
import pandas as pd
import pytest

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
