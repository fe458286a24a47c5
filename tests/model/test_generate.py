"""New cells: names checked, seeded, and by the law the denoiser knows."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from countsdiff import CountsDiffImputer
from countsdiff.model import _generate


@pytest.fixture(scope="module")
def separate(make_adata, train):
    """A model of two labels that share no gene, trained until it knows."""
    adata = make_adata(n_obs=200)
    counts = np.random.default_rng(0).poisson(3.0, size=adata.shape).astype(np.float32)
    is_a = (adata.obs["kind"] == "a").to_numpy()
    counts[is_a, :15] = 0
    counts[~is_a, 15:] = 0
    adata.X = sparse.csr_matrix(counts)
    adata.layers["raw"] = adata.X.copy()
    return train(adata, max_steps=500, layer="raw", labels_key="kind", batch_key="batch")


def test_result_is_data_of_the_registered_kind(separate):
    cells = separate.generate(40, labels="a", batch=["x", "y"] * 20, n_steps=5)
    assert cells.shape == (40, 30)
    assert list(cells.var_names) == list(separate.get_var_names())
    counts = cells.X.toarray()
    np.testing.assert_array_equal(counts, np.round(counts))
    np.testing.assert_array_equal(counts, cells.layers["raw"].toarray())
    assert (cells.obs["kind"] == "a").all()
    assert list(cells.obs["batch"]) == ["x", "y"] * 20
    record = cells.uns["countsdiff"]["generated"]
    assert (record["seed"], record["n_steps"], record["guidance_scale"]) == (0, 5, 1.0)
    assert separate.denoise(cells, inplace=False).shape == (40, 30)  # goes back into the model


def test_labels_are_obeyed(separate):
    a, b = (separate.generate(60, labels=label, n_steps=10).X.toarray() for label in "ab")
    assert a[:, 15:].sum() > 10 * a[:, :15].sum()
    assert b[:, :15].sum() > 10 * b[:, 15:].sum()
    assert abs(a.sum() / 60 / 45 - 1) < 0.15  # 15 genes of mean 3


def test_covariates_not_given_are_drawn_as_the_training_cells_have_them(separate):
    drawn = separate.generate(2000, n_steps=1).obs
    known = separate.adata.obs
    for columns in (["kind"], ["kind", "batch"]):
        shares, expected = (
            table.groupby(columns, observed=True).size() / len(table) for table in (drawn[columns], known[columns])
        )
        assert (shares - expected).abs().max() < 5 * 0.5 / 2000**0.5


def test_draws_depend_on_the_seed_alone(separate):
    whole = separate.generate(30, n_steps=3, seed=1)
    in_batches, of_more = (separate.generate(n, n_steps=3, seed=1, batch_size=7) for n in (30, 50))
    for other in (in_batches, of_more[:30]):
        np.testing.assert_array_equal(whole.X.toarray(), other.X.toarray())
        pd.testing.assert_frame_equal(whole.obs.astype(str), other.obs.astype(str))
    assert (whole.X != separate.generate(30, n_steps=3, seed=2).X).nnz > 0


def test_guidance_off_ignores_labels(separate):
    a, b = (separate.generate(50, labels=label, batch="x", guidance_scale=0.0, n_steps=3).X for label in "ab")
    assert (a != b).nnz == 0


def test_generates_without_data(separate, tmp_path):
    separate.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", adata=False)
    np.testing.assert_array_equal(
        loaded.generate(10, n_steps=2).X.toarray(), separate.generate(10, n_steps=2).X.toarray()
    )


def test_every_kind_of_covariate(make_adata, train):
    adata = make_adata()
    adata.obs["size"] = 1.5
    model = train(
        adata,
        max_steps=3,
        size_factor_key="size",
        categorical_covariate_keys=["batch", "kind"],
        continuous_covariate_keys=["age"],
    )
    obs = model.generate(20, n_steps=1).obs
    assert set(obs) == {"size", "batch", "kind", "age"}
    assert obs["age"].isin(adata.obs["age"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": "c"}, r"'c' is unknown.*'a', 'b'"),
        ({"batch": ["x", "nowhere"] * 5}, "'nowhere' is unknown"),
        ({"labels": ["a", "b"]}, "2 values for 10 cells"),
        ({"n_steps": 0}, "n_steps=0"),
    ],
)
def test_bad_arguments_are_named(separate, arguments, message):
    with pytest.raises(ValueError, match=message):
        separate.generate(10, **arguments)


def test_categories_that_no_cell_has_are_unknown(make_adata, train, tmp_path):
    adata = make_adata()
    for column, extra in (("kind", "ghost"), ("batch", "nowhere")):
        adata.obs[column] = adata.obs[column].astype("category").cat.add_categories([extra])
    model = train(adata, max_steps=2, labels_key="kind", batch_key="batch")
    model.save(tmp_path / "model")
    for each in (model, type(model).load(tmp_path / "model", adata=False)):
        with pytest.raises(ValueError, match="'ghost' is unknown"):
            each.generate(5, labels="ghost")
        with pytest.raises(ValueError, match="'nowhere' is unknown"):
            each.get_normalized_expression(adata, transform_batch="nowhere")


def test_categories_of_the_reference_that_the_query_lacks(make_adata, train):
    reference = train(make_adata(), max_steps=2, labels_key="kind", batch_key="batch")
    query = make_adata(seed=1)
    query = query[query.obs["kind"] == "a"].copy()
    query.obs["kind"] = query.obs["kind"].astype("category")
    model = CountsDiffImputer.load_query_data(query, reference)
    for labels in ("b", ["a", "b", "b"]):
        cells, same = (m.generate(3, labels=labels, batch="x") for m in (model, reference))
        assert list(cells.obs["kind"]) == list(same.obs["kind"])
        codes = model._covariates(cells.obs)[0]
        assert torch.equal(codes, reference._covariates(same.obs)[0])
        assert (codes >= 0).all()


def test_one_column_cannot_have_two_values(make_adata, train):
    model = train(make_adata(), max_steps=2, labels_key="kind", batch_key="kind")
    assert list(model.generate(2, labels="a", batch="a").obs["kind"]) == ["a", "a"]
    with pytest.raises(ValueError, match="labels and batch are one column, 'kind', and differ"):
        model.generate(2, labels="a", batch="b")


def test_every_category_has_a_cell_in_the_design(make_adata, train, monkeypatch):
    monkeypatch.setattr(_generate, "_MAX_DESIGN", 4)
    adata = make_adata()
    adata.obs.loc["cell7", "kind"] = "rare"
    model = train(adata, max_steps=2, labels_key="kind", batch_key="batch")
    assert set(model.design_["kind"]) == {"a", "b", "rare"}
    assert set(model.design_["batch"]) == {"x", "y", "z"}


def test_no_cells_and_no_labels(separate, make_adata, train):
    with pytest.raises(ValueError, match="at least 1"):
        separate.generate(0)
    with pytest.raises(ValueError, match="knows no labels"):
        train(make_adata(), max_steps=3).generate(2, labels="a")
    with pytest.raises(RuntimeError, match="train"):
        CountsDiffImputer(make_adata()).generate(2)
