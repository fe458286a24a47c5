"""Options of the paper, at the level of the model: what they do to an AnnData."""

import numpy as np
import pytest

from countsdiff import CountsDiffImputer


def test_label_zeros_are_zeros_of_genes_seen_in_the_label(trained, make_adata):
    adata = make_adata()
    counts = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    kinds = adata.obs["kind"].to_numpy()
    expected = np.zeros_like(counts, dtype=bool)
    for kind in np.unique(kinds):
        cells = kinds == kind
        expected[cells] = (counts[cells] == 0) & (counts[cells] > 0).any(axis=0)
    assert 0 < expected.sum() < (counts == 0).sum()
    by_rule = trained.impute(adata, missing="label_zeros", inplace=False)
    assert np.array_equal(by_rule, trained.impute(adata, missing=expected, inplace=False))
    assert np.array_equal(by_rule[~expected], counts[~expected])


def test_label_zeros_of_reordered_genes(trained, make_adata):
    adata = make_adata()
    order = np.random.default_rng(0).permutation(adata.n_vars)
    moved = trained.impute(adata[:, order].copy(), missing="label_zeros", inplace=False)
    assert np.array_equal(moved, trained.impute(adata, missing="label_zeros", inplace=False)[:, order])


def test_label_zeros_need_labels(make_adata, train):
    model = train(make_adata())
    with pytest.raises(ValueError, match="register them: setup_anndata\\(labels_key"):
        model.impute(missing="label_zeros")


def test_repaint_draws_the_missing_entries_alone(trained, query, hidden):
    options = {"output": "sample", "n_steps": 6, "inplace": False}
    drawn = trained.impute(query, method="repaint", jump=2, **options)
    assert np.array_equal(drawn[~hidden], query.X.toarray()[~hidden])
    assert np.array_equal(drawn, np.floor(drawn))
    assert not np.array_equal(drawn, trained.impute(query, **options))
    assert np.array_equal(drawn, trained.impute(query, method="repaint", jump=2, batch_size=7, **options))
    assert not np.array_equal(drawn, trained.impute(query, method="repaint", jump=2, n_resample=1, **options))


@pytest.mark.parametrize("options", [{"output": "mean"}, {"output": "sample", "interval": 0.9}])
def test_repaint_has_samples_only(trained, query, options):
    with pytest.raises(ValueError, match="draws samples and nothing else"):
        trained.impute(query, method="repaint", **options)


@pytest.mark.parametrize("missing", ["zeros", "all"])
def test_repaint_needs_missing_entries(trained, query, missing):
    with pytest.raises(ValueError, match="draws missing entries beside known ones, and here none is missing"):
        trained.impute(query, missing=missing, output="sample", method="repaint")


@pytest.mark.parametrize(
    "option",
    [{"births": "poisson"}, {"births": "round"}, {"births": "stochastic"}, {"spacing": "t"}]
    + [{"attrition": 0.5}, {"attrition": 0.5, "attrition_kind": "capped"}],
    ids=str,
)
def test_ways_to_draw_differ_and_are_recorded(trained, query, hidden, option):
    options = {"output": "sample", "n_steps": 5}
    plain = trained.impute(query, inplace=False, **options)
    trained.impute(query, **options, **option)
    other = query.layers["imputed"]
    other = other.toarray() if hasattr(other, "toarray") else other
    assert not np.array_equal(plain[hidden], other[hidden])
    record = query.uns["countsdiff"]["imputed"]
    assert all(record[name] == value for name, value in option.items())
    # the mean of a draw is that of the intensity, except where rare counts are rounded away
    if option != {"births": "round"}:
        assert other[hidden].mean() == pytest.approx(plain[hidden].mean(), rel=0.15)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "logit_linear", "blackout", "jump"])
@pytest.mark.parametrize(
    "settings", [{"spacing": "t", "weight": "paper", "head": "rate"}, {"weight": "unit"}, {}], ids=str
)
def test_samples_have_the_mean_whatever_trained(make_adata, hidden, train, schedule, settings):
    adata = make_adata()
    adata.layers["hidden"] = hidden
    model = train(adata, 60, {"schedule": schedule, **settings}, missing_layer="hidden")
    mean = model.impute(inplace=False)[hidden]
    for spacing in ("t", "p"):
        options = {"output": "sample", "n_samples": 20, "n_steps": 4, "spacing": spacing}
        drawn = model.impute(**options, inplace=False)[:, hidden]
        assert drawn.sum() / (20 * mean.sum()) == pytest.approx(1.0, abs=0.05)


def test_the_transformer_is_a_backbone(make_adata, tmp_path):
    adata = make_adata()
    CountsDiffImputer.setup_anndata(adata, labels_key="kind")
    model = CountsDiffImputer(adata, backbone="transformer", width=16, depth=1)
    model.train(max_steps=10, batch_size=32, enable_progress_bar=False)
    expected = model.impute(inplace=False)
    model.save(tmp_path / "model")
    again = CountsDiffImputer.load(tmp_path / "model", adata=adata)
    assert np.array_equal(again.impute(inplace=False), expected)
