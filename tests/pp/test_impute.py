import subprocess
import sys

import mudata
import numpy as np
import pytest
from scipy import sparse

from countsdiff import CountsDiffImputer, pp
from countsdiff.layers import named_layers

FAST = {"max_steps": 20, "accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture
def adata(make_adata):
    return make_adata(60, 12)


@pytest.fixture
def hidden(adata):
    return pp.mcar(adata.shape, 0.4, seed=1)


def test_equals_the_three_calls_it_stands_for(adata, hidden):
    adata.layers["hidden"] = hidden
    expected = adata.copy()
    CountsDiffImputer.setup_anndata(expected, missing_layer="hidden", labels_key="kind")
    model = CountsDiffImputer(expected, seed=3, width=32)
    model.train(seed=3, batch_size=16, **FAST)
    model.impute(output="sample", seed=3, key_added="drawn")
    options = {"missing_layer": "hidden", "labels_key": "kind", "width": 32, "batch_size": 16, "output": "sample"}
    assert pp.impute(adata, key_added="drawn", seed=3, **options, **FAST) is None
    np.testing.assert_array_equal(dense(adata.layers["drawn"]), dense(expected.layers["drawn"]))
    assert adata.uns["countsdiff"]["drawn"] == expected.uns["countsdiff"]["drawn"]


def test_takes_anndata(adata):
    for data in ("cells.h5ad", adata.X, mudata.MuData({"rna": adata})):
        with pytest.raises(TypeError, match=f"pp.impute takes AnnData; got {type(data).__name__}"):
            pp.impute(data)


def test_writes_nothing_but_layers_and_their_record(adata):
    before = adata.copy()
    pp.impute(adata, **FAST, output="sample", n_samples=2)
    assert set(named_layers(adata)) == {"imputed_0", "imputed_1"}
    assert set(adata.uns) == {"countsdiff"}
    assert list(adata.obs) == list(before.obs)
    assert (adata.X != before.X).nnz == 0


def test_the_order_in_memory_makes_no_layers(adata, hidden):
    adata.layers["counts"] = np.asfortranarray(adata.X.toarray() if sparse.issparse(adata.X) else adata.X)
    before = adata.layers["counts"]
    pp.impute(adata, missing=np.asfortranarray(hidden), interval=0.9, **FAST)
    assert {*adata.layers} - {None} == {"counts", "imputed", "imputed_lower", "imputed_upper"}
    assert adata.layers["counts"] is before
    pp.impute(adata, missing=hidden, **FAST)  # without intervals: those of before would pass for its own
    assert {*adata.layers} - {None} == {"counts", "imputed"}


def test_prefers_the_layer_counts(adata):
    expected = adata.copy()
    pp.impute(expected, **FAST)
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X / 7
    pp.impute(adata, **FAST)
    np.testing.assert_array_equal(dense(adata.layers["imputed"]), dense(expected.layers["imputed"]))


def test_replaces_an_older_result(adata):
    for seed in (0, 1):
        pp.impute(adata, **FAST, seed=seed)
        assert adata.uns["countsdiff"]["imputed"]["seed"] == seed
    first = adata.layers["imputed"]
    pp.impute(adata, **FAST, seed=0)
    assert (dense(adata.layers["imputed"]) != dense(first)).any()


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, sparse.csr_matrix, sparse.coo_matrix, "layer"])
def test_training_does_not_look_at_what_is_missing(adata, hidden, form):
    results = []
    for value in (0, 50):
        copy = adata.copy()
        copy.X = np.where(hidden, np.float32(value), adata.X.toarray())
        copy.layers["marks"] = hidden
        pp.impute(copy, **FAST, missing="marks" if form == "layer" else form(hidden))
        results.append(dense(copy.layers["imputed"]))
    np.testing.assert_array_equal(*results)


def test_nothing_is_missing_where_nothing_is_marked(adata):
    zeros = (adata.X.toarray() == 0).sum()
    pp.impute(adata, missing=np.zeros(adata.shape, dtype=bool), key_added="none", **FAST)
    assert adata.uns["countsdiff"]["none"]["n_imputed"] == 0
    np.testing.assert_array_equal(dense(adata.layers["none"]), adata.X.toarray())
    pp.impute(adata, key_added="zeros", **FAST)
    assert adata.uns["countsdiff"]["zeros"]["n_imputed"] == zeros


def test_rules_for_missing_pass_through(adata):
    pp.impute(adata, **FAST, missing="all")
    assert adata.uns["countsdiff"]["imputed"]["n_imputed"] == adata.n_obs * adata.n_vars


def test_a_rule_is_one_whatever_layers_there_are(adata, hidden):
    adata.layers["zeros"] = hidden
    pp.impute(adata, **FAST, missing="zeros")
    kept = dense(adata.X) > 0
    np.testing.assert_array_equal(dense(adata.layers["imputed"])[kept], dense(adata.X)[kept])


@pytest.mark.parametrize("name", ["nonsense", "inplace", "self"])
def test_refuses_unknown_arguments_by_name(adata, name):
    with pytest.raises(TypeError, match=f"no argument '{name}'"):
        pp.impute(adata, **{name: 1})


def test_refuses_two_answers_to_what_is_missing(adata, hidden):
    with pytest.raises(ValueError, match="either missing or missing_layer"):
        pp.impute(adata, missing=hidden, missing_layer="hidden")


def test_refuses_marks_of_another_shape(adata, hidden):
    with pytest.raises(ValueError, match=r"shape \(5, 12\), but adata has shape \(60, 12\)"):
        pp.impute(adata, missing=hidden[:5])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"output": "mode"}, "Unknown output 'mode'"),
        ({"interval": 90}, "got 90"),
        ({"method": "x"}, "Unknown method 'x'"),
        ({"n_steps": 0}, "at least one step"),
        ({"spacing": "q"}, "Unknown spacing 'q'"),
        ({"missing": "zeroes"}, "'zeroes' is neither"),
        ({"missing": "label_zeros"}, "goes by labels"),
        ({"layer": "umi", "key_added": "umi"}, "would overwrite"),
    ],
)
def test_a_wrong_option_is_an_error_before_training(adata, option, message, monkeypatch):
    adata.layers["umi"] = adata.X.copy()
    monkeypatch.setattr(CountsDiffImputer, "train", lambda self, **_: pytest.fail("trained first"))
    with pytest.raises((ValueError, KeyError), match=message):
        pp.impute(adata, **option)


def test_nothing_is_kept_of_the_data(adata):
    stores = CountsDiffImputer._setup_adata_manager_store, CountsDiffImputer._per_instance_manager_store
    before = [set(store) for store in stores]
    pp.impute(adata, **FAST)
    with pytest.raises(KeyError):
        pp.impute(adata, batch_key="kind", missing="zeroes", **FAST)
    assert [set(store) for store in stores] == before


def test_a_view_is_as_good_as_a_copy(adata):
    adata.X = adata.X.toarray()
    some = adata[adata.obs["kind"] == "a"]
    whole = some.copy()
    pp.impute(some, **FAST)
    pp.impute(whole, **FAST)
    np.testing.assert_array_equal(some.layers["imputed"], whole.layers["imputed"])


def test_importing_pp_loads_neither_torch_nor_scvi():
    code = "import sys, countsdiff.pp; sys.exit({'torch', 'scvi', 'scanpy'} & set(sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
