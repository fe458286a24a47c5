"""Bad input is refused in one sentence that names the place, and left as it was; odd but legal input works."""

import gc
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from countsdiff import CountsDiffImputer
from countsdiff.model._data import CategoryField


@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize(
    ("value", "word"), [(-1, "negative"), (0.5, "whole"), (np.inf, "infinite"), (-np.inf, "negative")]
)
def test_one_bad_count_is_found_wherever_it_is(make_adata, value, word, as_sparse):
    adata = make_adata(n_obs=3000, n_vars=10)
    counts = adata.X.toarray()
    counts[2917, 7] = value
    adata.X = sparse.csr_matrix(counts) if as_sparse else counts
    with pytest.raises(ValueError, match="'cell2917', gene 'gene7'") as error:
        CountsDiffImputer.setup_anndata(adata)
    assert word in str(error.value)
    assert "_scvi_uuid" not in adata.uns
    assert not any(key.startswith("_scvi") for key in adata.obs)


def test_normalised_input_is_recognised(make_adata):
    adata = make_adata()
    adata.X = np.log1p(adata.X.toarray() * 0.37)
    with pytest.raises(ValueError, match="looks normalised"):
        CountsDiffImputer(adata)


def test_absent_names(make_adata):
    adata = make_adata()
    with pytest.raises(KeyError, match="no 'raw'"):
        CountsDiffImputer.setup_anndata(adata, layer="raw")
    with pytest.raises(KeyError, match="no 'holes'"):
        CountsDiffImputer.setup_anndata(adata, missing_layer="holes")
    with pytest.raises(KeyError, match="no column 'donor'"):
        CountsDiffImputer.setup_anndata(adata, batch_key="donor")


def test_gene_names_that_repeat(make_adata):
    adata = make_adata()
    adata.var_names = ["twice", "twice", *adata.var_names[2:]]
    with pytest.raises(ValueError, match="'twice' stands more than once"):
        CountsDiffImputer(adata)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_empty_input(shape):
    with pytest.raises(ValueError, match="empty"):
        CountsDiffImputer(ad.AnnData(np.zeros(shape, np.float32)))


def test_text_is_not_counts():
    adata = ad.AnnData(np.ones((3, 2), np.float32))
    adata.layers["text"] = np.array([["a", "b"]] * 3, dtype=object)
    with pytest.raises(ValueError, match="not real numbers"):
        CountsDiffImputer.setup_anndata(adata, layer="text")


def test_transposed_query(trained, make_adata):
    with pytest.raises(ValueError, match="swapped"):
        trained.impute(make_adata().T.copy())


def test_query_lacks_genes_or_has_too_many(trained, make_adata):
    with pytest.raises(ValueError, match=r"lack 1 of the 30 genes.*'gene4'"):
        trained.impute(make_adata()[:, [j for j in range(30) if j != 4]].copy())
    wider = ad.concat([make_adata(), ad.AnnData(np.ones((90, 1), np.float32), obs=make_adata().obs[[]])], axis=1)
    wider.obs = make_adata().obs
    with pytest.raises(ValueError, match="31 genes, the model 30"):
        trained.impute(wider)


def test_bad_counts_in_query(trained, query):
    counts = query.X.toarray()
    counts[8, 2] = 1.5
    query.X = counts
    with pytest.raises(ValueError, match="'cell8', gene 'gene2'"):
        trained.impute(query)


def test_unseen_category(trained, query):
    query.obs["kind"] = "unheard-of"
    with pytest.raises(ValueError, match="unheard-of"):
        trained.impute(query)


def test_query_without_a_column(make_adata, train):
    model, query = train(make_adata(), labels_key="kind"), make_adata(seed=3)
    del query.obs["kind"]
    with pytest.raises(KeyError, match="no column 'kind'; it has .*load_query_data"):
        model.impute(query)


def test_query_without_marks_of_missing_entries(trained, make_adata):
    adata = make_adata()
    trained.impute(adata)
    assert adata.uns["countsdiff"]["imputed"]["rewrite"] == "zeros"


def test_marks_that_mark_nothing(trained, make_adata):
    adata = make_adata()
    adata.layers["hidden"] = np.zeros(adata.shape, dtype=bool)
    with pytest.warns(UserWarning, match="their zeros are rewritten. missing='hidden' rewrites missing entries only"):
        trained.impute(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained.impute(adata, missing="zeros")
        np.testing.assert_array_equal(trained.impute(adata, missing="hidden", inplace=False), adata.X.toarray())


@pytest.mark.parametrize(
    "wrong",
    [
        {"missing": np.zeros((5, 5), dtype=bool)},
        {"missing": "nowhere"},
        {"indices": [10**6]},
        {"batch_size": -1},
        {"guidance_scale": np.nan},
        {"output": "sample", "attrition": "x"},
        {},
    ],
)
def test_data_that_nobody_set_up_stay_as_they_are(trained, make_adata, wrong):
    adata = make_adata(seed=4)
    before = adata.copy()
    if wrong:
        with pytest.raises((ValueError, KeyError, IndexError)):
            trained.impute(adata, **wrong)
    else:
        trained.impute(adata, inplace=False)
        trained.denoise(adata, inplace=False)
    assert list(adata.obs) == list(before.obs)
    assert not adata.uns
    assert not adata.obsm
    assert list(adata.layers) == list(before.layers)
    np.testing.assert_array_equal(adata.X.toarray(), before.X.toarray())


def test_copies_of_data_that_were_set_up_stay_as_they_are(make_adata, train):
    adata = make_adata()
    model = train(adata, max_steps=3, labels_key="kind")
    managers = model._per_instance_manager_store[model.id]
    n_before = len(managers)
    copy = adata.copy()
    uns, obs = dict(copy.uns), list(copy.obs)
    for _ in range(2):
        model.impute(copy, inplace=False)
    assert copy.uns == uns
    assert list(copy.obs) == obs
    assert len(managers) == n_before
    own = adata.uns["_scvi_uuid"]
    model.impute(inplace=False)
    assert adata.uns["_scvi_uuid"] == own
    adata.uns.clear()  # whoever does that can go on, too
    model.impute(inplace=False)
    model.train(2, batch_size=32, enable_progress_bar=False)


def test_a_model_without_data_keeps_none(make_adata, train, tmp_path):
    train(make_adata(), max_steps=3).save(tmp_path / "model")
    model = CountsDiffImputer.load(tmp_path / "model", adata=False)
    adata = make_adata(seed=2)
    gone = weakref.ref(adata)
    model.impute(adata, inplace=False)
    del adata
    gc.collect()
    assert gone() is None


def test_an_interruption_while_data_are_registered_leaves_nothing(make_adata, train, monkeypatch):
    model, adata = train(make_adata(), max_steps=3, labels_key="kind"), make_adata(seed=2)
    transfer = CategoryField.transfer_field

    def interrupted(self, *args, **kwargs):
        transfer(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(CategoryField, "transfer_field", interrupted)
    before = list(adata.obs)
    with pytest.raises(KeyboardInterrupt):
        model.impute(adata)
    assert list(adata.obs) == before
    assert not adata.uns


def test_threads_may_predict_the_same_data(make_adata, train):
    model, adata = train(make_adata(), max_steps=3, labels_key="kind"), make_adata(seed=2)
    expected = model.impute(adata, inplace=False)
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda _: model.impute(adata, inplace=False), range(12)):
            np.testing.assert_array_equal(answer, expected)


def test_genes_that_a_batch_did_not_measure(make_adata):
    first, second = make_adata(n_obs=400), make_adata(n_obs=200, seed=1)[:, 4:].copy()
    second.obs_names = [f"other{i}" for i in range(200)]
    frequent = np.flatnonzero(np.asarray(first.X[:, :4].mean(0)).ravel() > 0.5)
    assert len(frequent)
    for fill in (0, np.nan):
        joined = ad.concat({"one": first, "two": second}, join="outer", label="run", fill_value=fill)
        CountsDiffImputer.setup_anndata(joined, batch_key="run")
        if fill == 0:
            match = f"^{len(frequent)} genes, such as 'gene{frequent[0]}', have no count in batch 'two'"
            with pytest.warns(UserWarning, match=match):
                CountsDiffImputer(joined, width=8)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                CountsDiffImputer(joined, width=8)


def test_a_few_cells_or_genes_are_no_genes_that_were_not_measured(make_adata):
    adata = make_adata(n_obs=400)
    adata.X = adata.X.toarray()
    adata.obs["run"] = ["one"] * 200 + ["two"] * 195 + ["three"] * 5
    adata.X[395:, :15] = 0  # five cells are no evidence
    adata.X[200:395, :3] = 0  # three genes are those of a sex
    CountsDiffImputer.setup_anndata(adata, batch_key="run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CountsDiffImputer(adata, width=8)


@pytest.mark.parametrize("kind", ["zero cell", "zero gene", "missing cell", "missing gene", "one cell", "one gene"])
def test_odd_but_legal(kind, make_adata, train):
    adata = make_adata(n_obs=1 if kind == "one cell" else 90, n_vars=1 if kind == "one gene" else 30)
    counts = adata.X.toarray()
    if kind == "zero cell":
        counts[4] = 0
    elif kind == "zero gene":
        counts[:, 4] = 0
    elif kind == "missing cell":
        counts[4] = np.nan
    elif kind == "missing gene":
        counts[:, 4] = np.nan
    else:
        counts[0, 0] = np.nan
    adata.X = counts
    model = train(adata, max_steps=12)
    imputed = model.impute(missing="zeros", inplace=False)
    assert np.isfinite(imputed).all()
    assert (imputed >= 0).all()
    if kind == "missing cell":  # nothing is known of it: about the mean of every gene
        profile = np.nanmean(counts, axis=0)
        assert np.corrcoef(imputed[4], profile)[0, 1] > 0.9
        assert 0.5 < imputed[4].sum() / profile.sum() < 2.0
    if kind == "zero gene":
        assert imputed[:, 4].max() < 0.2
    draws = model.impute(output="sample", missing="zeros", inplace=False)
    assert np.isfinite(draws).all()


def test_extreme_counts(make_adata, train):
    adata = make_adata()
    counts = adata.X.toarray()
    counts[:, 0] = 1_000_000
    adata.X = counts
    hole = np.zeros(adata.shape, bool)
    hole[:5, 0] = True
    model = train(adata, max_steps=12)
    imputed = model.impute(missing=hole, inplace=False)[hole]
    assert ((imputed > 1e5) & (imputed < 1e7)).all()
    draws = model.impute(missing=hole, output="sample", n_steps=2, inplace=False)[hole]
    assert (draws == np.round(draws)).all()


@pytest.mark.parametrize("strange", [10**6, -5])
@pytest.mark.parametrize("field", ["indices", "indptr"])
@pytest.mark.parametrize("by", ["csr", "csc"])
def test_sparse_matrix_that_lies(make_adata, by, field, strange):
    adata = make_adata()
    adata.X = adata.X.asformat(by)
    getattr(adata.X, field)[7] = strange
    with pytest.raises(ValueError, match=r"adata\.X is damaged"):
        CountsDiffImputer.setup_anndata(adata)


def test_short_pointers_that_wrapped_around(make_adata):
    adata = make_adata()
    adata.X.indptr = adata.X.indptr.astype(np.int8)
    with pytest.raises(ValueError, match=r"adata\.X is damaged"):
        CountsDiffImputer.setup_anndata(adata)


@pytest.mark.parametrize("setup", [{"batch_key": "kind"}, {"categorical_covariate_keys": ["batch", "kind"]}])
def test_cells_without_a_category(make_adata, train, setup):
    model = train(make_adata(), max_steps=2, **setup)
    adata = make_adata()
    adata.obs["kind"] = adata.obs["kind"].astype("category")
    adata.obs.loc["cell3", "kind"] = np.nan
    with pytest.raises(ValueError, match=r"'kind'\] has no value for cell 'cell3'"):
        CountsDiffImputer.setup_anndata(adata, **setup)
    with pytest.raises(ValueError, match=r"'kind'\] has no value for cell 'cell3'"):
        model.impute(adata)


@pytest.mark.parametrize(
    ("value", "says"), [(0.0, "a size factor"), (-1.0, "a size factor"), (np.inf, "a size factor")]
)
def test_size_factors_are_positive(make_adata, train, value, says):
    adata = make_adata()
    adata.obs["size"] = 1.0
    model = train(adata, max_steps=2, size_factor_key="size")
    other = adata.copy()
    other.obs.loc["cell3", "size"] = value
    for refuse in (lambda: CountsDiffImputer.setup_anndata(other, size_factor_key="size"), lambda: model.impute(other)):
        with pytest.raises(ValueError, match=rf"'size'\] holds {value:g} for cell 'cell3', which is not {says}"):
            refuse()
    other.obs.loc["cell3", "size"] = np.nan  # unknown
    assert np.isfinite(model.impute(other, missing="all", inplace=False)).all()


def test_covariates_are_finite_numbers(make_adata):
    adata = make_adata()
    adata.obs.loc["cell5", "age"] = np.inf
    with pytest.raises(ValueError, match=r"'age'\] holds inf for cell 'cell5', which is not a finite number"):
        CountsDiffImputer.setup_anndata(adata, continuous_covariate_keys="age")
    with pytest.raises(ValueError, match=r"'kind'\] holds \w+, not numbers"):
        CountsDiffImputer.setup_anndata(adata, continuous_covariate_keys="kind")


def test_covariates_of_several_kinds(make_adata, train):
    adata = make_adata()
    adata.obs["flag"] = np.arange(adata.n_obs) % 2 == 0
    adata.obs["rounded"] = pd.array([1, None] * (adata.n_obs // 2), dtype="Int64")
    model = train(adata, max_steps=2, continuous_covariate_keys=["age", "flag", "rounded"])
    assert np.isfinite(model.impute(inplace=False)).all()


def test_counts_that_float32_cannot_hold(make_adata):
    adata = make_adata()
    counts = adata.X.toarray().astype(np.int64)
    counts[2, 3] = 2**24
    adata.X = counts
    CountsDiffImputer.setup_anndata(adata)
    counts[2, 3] += 1
    with pytest.raises(ValueError, match=r"'cell2', gene 'gene3' holds 16,777,217; above 16,777,216"):
        CountsDiffImputer.setup_anndata(adata)


def test_marks_of_missing_entries_are_boolean(make_adata, trained):
    adata = make_adata()
    adata.layers["hidden"] = adata.X.copy()  # counts, by mistake
    with pytest.raises(ValueError, match=r"adata.layers\['hidden'\] holds \d.*; it must be boolean"):
        CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    with pytest.raises(ValueError, match=r"adata.layers\['hidden'\] holds \d.*; it must be boolean"):
        trained.impute(adata)


@pytest.mark.parametrize("name", ["hidden", "umi"])
def test_what_the_model_reads_is_not_written(make_adata, hidden, train, name):
    adata = make_adata()
    adata.layers["umi"], adata.layers["hidden"] = adata.X.copy(), hidden
    model = train(adata, max_steps=2, layer="umi", missing_layer="hidden")
    with pytest.raises(ValueError, match=rf"would overwrite layers\['{name}'\], which it is made from"):
        model.impute(key_added=name)
    adata.layers["hole"] = hidden
    with pytest.raises(ValueError, match=r"would overwrite layers\['hole'\]"):
        model.impute(missing="hole", key_added="hole")
    model.impute(missing="hole", key_added=name, inplace=False)


def test_arguments_of_the_wrong_kind(make_adata, trained):
    import mudata

    adata = make_adata()
    with pytest.raises(TypeError, match="setup_anndata takes AnnData; got MuData .*setup_mudata"):
        CountsDiffImputer.setup_anndata(mudata.MuData({"rna": adata}))
    with pytest.raises(TypeError, match="are AnnData or MuData; got str"):
        trained.differential_expression("kind")
    for name in ("schedule", "weight"):
        with pytest.raises(TypeError, match=f"{name} is a name"):
            CountsDiffImputer(adata, **{name: lambda t: 1 - t})
    with pytest.raises(ValueError, match="Unknown spacing 'P'"):
        CountsDiffImputer(adata, spacing="P")
    model = CountsDiffImputer(adata)
    with pytest.raises(TypeError, match="no argument 'max_epochs'; say how long by max_steps"):
        model.train(max_epochs=3)
    wrong = {"max_steps": 0, "batch_size": 1.5, "lr": 0.0, "weight_decay": -1.0, "seed": None}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name}.*; got {value}"):
            model.train(**{"max_steps": 1, name: value})
    for name, value in {"width": 0, "depth": -1, "seed": None}.items():
        with pytest.raises(ValueError, match=f"{name} is a whole number.*; got {value}"):
            CountsDiffImputer(adata, **{name: value})
    for name, value in {"seed": 1.5, "n_steps": 2.5, "n_samples": 0, "batch_size": 0}.items():
        with pytest.raises(ValueError, match=f"{name} is a whole number.*; got {value}"):
            trained.impute(output="sample", **{name: value})
    for size in (-1, np.inf, None, "own", np.ones(3)):
        with pytest.raises(ValueError, match=r"library_size is positive and finite, or 'latent'; got"):
            trained.get_normalized_expression(library_size=size)
    with pytest.raises(ValueError, match=r"True_? is none of the data; a mask has names"):
        trained.get_normalized_expression(gene_list=np.ones(adata.n_vars, dtype=bool))
    for predict in (trained.impute, trained.denoise):
        with pytest.raises(ValueError, match="Unknown output 'rate'"):  # which is there for get_normalized_expression
            predict(output="rate")
    with pytest.raises(ValueError, match="interval is a coverage.*; got '0.9'"):
        trained.impute(interval="0.9")
    with pytest.raises(ValueError, match="n_cells is a whole number, at least 1; got 2.5"):
        trained.generate(2.5)
    with pytest.raises(ValueError, match="seed is a whole number.*; got None"):
        trained.generate(2, seed=None)
    with pytest.raises(ValueError, match="accumulate_grad_batches is a whole number, at least 1; got 0"):
        model.train(accumulate_grad_batches=0)
    with pytest.raises(TypeError, match=r"give it one modality, such as mdata\['rna'\]"):
        trained.impute(mudata.MuData({"rna": adata}))
    for key in ("", "a/b", None):
        with pytest.raises(ValueError, match="key_added names a layer, without slashes"):
            trained.impute(key_added=key)
    for call in (CountsDiffImputer, trained.impute):
        with pytest.raises(TypeError, match="are AnnData or MuData; got str"):
            call("cells.h5ad")
    CountsDiffImputer.setup_anndata(adata, categorical_covariate_keys="batch")  # one name needs no list
    CountsDiffImputer.setup_anndata(adata, categorical_covariate_keys=["batch", "batch"])  # and counts once
    assert list(adata.obsm["_scvi_extra_categorical_covs"]) == ["batch"]


def test_no_cells(trained, query):
    with pytest.raises(ValueError, match="indices names no cells"):
        trained.impute(query, indices=[], inplace=False)
    with pytest.raises(ValueError, match=f"do not fit the data of {query.n_obs} cells"):
        trained.impute(query, indices=[query.n_obs], inplace=False)
    with pytest.raises(ValueError, match="one list of cells; got 2 dimensions"):
        trained.impute(query, indices=[[0, 1]], inplace=False)


def test_counts_are_no_marks(make_adata):
    adata = make_adata()
    adata.layers["hidden"] = np.zeros(adata.shape, dtype=bool)
    with pytest.raises(ValueError, match="both 'hidden'"):
        CountsDiffImputer.setup_anndata(adata, layer="hidden", missing_layer="hidden")


def test_all_entries_missing(make_adata):
    adata = make_adata()
    adata.layers["hidden"] = np.ones(adata.shape, dtype=bool)
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    with pytest.warns(UserWarning, match="No entry is observed: all are marked as missing, .* Inverted"):
        CountsDiffImputer(adata)


def test_no_counts_at_all(make_adata):
    adata = make_adata()
    adata.X = adata.X * 0
    with pytest.warns(UserWarning, match="No observed count is above zero"):
        CountsDiffImputer(adata)


def test_arguments_that_a_set_up_does_not_have(make_adata):
    with pytest.raises(TypeError, match=r"setup_anndata\(\) has no argument 'label_key'; it has .*labels_key"):
        CountsDiffImputer.setup_anndata(make_adata(), label_key="kind")


def test_a_copy_without_what_its_original_was_set_up_with(make_adata):
    adata = make_adata()
    adata.layers["umi"] = adata.X.copy()
    CountsDiffImputer.setup_anndata(adata, layer="umi")
    copy = adata.copy()
    del copy.layers["umi"]
    with pytest.raises(KeyError, match="no 'umi'.* a copy of data set up with it; call setup_anndata anew"):
        CountsDiffImputer(copy)


def test_intervals_are_no_categories_that_can_be_saved(make_adata):
    adata = make_adata()
    adata.obs["third"] = pd.cut(adata.obs["age"], 3)
    with pytest.raises(ValueError, match=r"adata.obs\['third'\] holds values that cannot be saved.*astype\(str\)"):
        CountsDiffImputer.setup_anndata(adata, labels_key="third")


def test_masked_arrays_are_refused(make_adata):
    adata = make_adata()
    counts = adata.X.toarray()
    adata.layers["masked"] = np.ma.masked_array(counts, counts > 3)
    with pytest.raises(ValueError, match=r"layers\['masked'\] is a masked array; mark missing entries by NaN"):
        CountsDiffImputer.setup_anndata(adata, layer="masked")
