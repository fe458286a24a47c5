"""A model of several modalities taken to other data: fewer modalities, other variables, other covariates."""

import warnings

import mudata
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from countsdiff import CountsDiffImputer

N_OBS, N_PROTEINS = 240, 6
RNA_DEPTH, PROTEIN_DEPTH = 2.0, 40.0


def make_mudata(seed: int, batch: str, efficiency: float = 1.0) -> mudata.MuData:
    """Two kinds of cells with RNA and proteins; `efficiency` multiplies every other gene."""
    law, rng = np.random.default_rng(42), np.random.default_rng(seed)
    kind = rng.integers(2, size=N_OBS)
    tables = {}
    for name, n_vars, depth in (("rna", 40, RNA_DEPTH), ("prot", N_PROTEINS, PROTEIN_DEPTH)):
        rates = law.gamma(1.0, depth, size=(2, n_vars))[kind] * rng.gamma(9.0, 1 / 9, size=(N_OBS, 1))
        if name == "rna":
            rates[:, ::2] *= efficiency
        table = AnnData(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)))
        table.obs_names = [f"{batch}{i}" for i in range(N_OBS)]
        table.var_names = [f"{name}{j}" for j in range(n_vars)]
        tables[name] = table
    tables["rna"].layers["counts"] = tables["rna"].X.copy()
    mdata = mudata.MuData(tables)
    mdata.obs["batch"], mdata.obs["kind"] = batch, kind
    return mdata


@pytest.fixture(scope="module")
def reference():
    mdata = mudata.concat([make_mudata(0, "one"), make_mudata(1, "two")], merge="same")
    mdata.obs["batch"] = [name[:3] for name in mdata.obs_names]
    CountsDiffImputer.setup_mudata(mdata, layers={"rna": "counts", "prot": None}, batch_key="batch")
    model = CountsDiffImputer(mdata, width=32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(max_steps=300, batch_size=32, enable_progress_bar=False)
    return model


def transferred(query, reference, **kwargs):
    return CountsDiffImputer.load_query_data(query, reference, **kwargs)


def test_data_like_the_reference_are_predicted_as_by_it(reference, tmp_path):
    query = make_mudata(2, "one")
    expected = reference.impute(query, missing="all", inplace=False)
    reference.save(tmp_path / "model")
    for source in (reference, tmp_path / "model"):
        model = transferred(make_mudata(2, "one"), source, adapt_means=False)
        for name, matrix in model.impute(missing="all", inplace=False).items():
            np.testing.assert_allclose(matrix, expected[name], rtol=1e-6)
    same = make_mudata(2, "one")
    assert transferred(same, reference).adata is same


def test_proteins_of_a_new_batch_that_has_none(reference):
    truth = make_mudata(3, "new", efficiency=0.4)
    rna = truth["rna"][:, np.random.default_rng(0).permutation(40)[:30]].copy()
    query = mudata.MuData({"rna": rna, "other": AnnData(np.ones((N_OBS, 2), np.float32), obs=rna.obs[[]])})
    query.obs["batch"] = "new"
    query.obs["mine"] = np.arange(N_OBS)
    query.obsm["X_umap"] = np.ones((N_OBS, 2))
    with pytest.raises(ValueError, match="'new', which the model was not trained on.* load_query_data"):
        reference.impute(query.copy())
    known = query.copy()
    known.obs["batch"] = "one"
    with pytest.raises(ValueError, match="lack 10 of the 40 genes.* with load_query_data"):
        reference.impute(known)
    model = transferred(query, reference)
    model.impute()
    result = model.adata
    assert list(result["rna"].var_names) == list(reference.get_var_names()["rna"])
    assert list(result.obs_names) == list(query.obs_names)
    assert list(result.obs["mine"]) == list(range(N_OBS))
    assert result["other"].shape == (N_OBS, 2)
    assert "X_umap" in result.obsm
    assert "prot" not in query.mod  # the data are left alone
    # of the two kinds of cells, the proteins are those of the cell's own
    law = np.random.default_rng(42)
    law.gamma(1.0, RNA_DEPTH, size=(2, 40))
    rates, kind = law.gamma(1.0, PROTEIN_DEPTH, size=(2, N_PROTEINS)), truth.obs["kind"].to_numpy()
    proteins = np.asarray(result.obsm["prot_imputed"])
    error, wrong = (np.abs(np.log(proteins / rates[k])) for k in (kind, 1 - kind))
    assert np.median(error) < 0.4 * np.median(wrong)


def test_means_are_adapted_to_the_modalities_there_are(reference):
    means = reference.module.denoiser.mean.numpy()
    query = make_mudata(4, "one", efficiency=0.25)
    rna = mudata.MuData({"rna": query["rna"]})
    rna.obs["batch"] = "one"
    adapted = transferred(rna, reference).module.denoiser.mean.numpy()
    ratio = adapted / means
    expressed = means[:40] > 0.5
    even = np.arange(40) % 2 == 0
    caught = np.median(ratio[:40][even & expressed]) / np.median(ratio[:40][~even & expressed])
    assert caught == pytest.approx(0.25, rel=0.25)
    np.testing.assert_array_equal(ratio[40:], 1.0)


def test_absent_variables_are_missing_entries(reference):
    query, holes = make_mudata(5, "two"), make_mudata(5, "two")
    counts = holes["prot"].X.toarray()
    counts[:, 2] = np.nan
    holes["prot"].X = counts
    lacking = mudata.MuData({"rna": query["rna"].copy(), "prot": query["prot"][:, [5, 4, 3, 1, 0]].copy()})
    lacking.obs["batch"] = "two"
    expected, found = (
        transferred(data, reference, adapt_means=False).impute(inplace=False) for data in (holes, lacking)
    )
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_absent_covariates_are_unknown_and_training_goes_on(reference):
    query = make_mudata(6, "one")
    del query.obs["batch"]
    with pytest.warns(UserWarning, match=r"lacks \['batch'\]"):
        model = transferred(query, reference)
    assert set(model.adata.obs["batch"]) == {"unknown"}
    before = model.impute(missing="all", inplace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(max_steps=20, batch_size=32, enable_progress_bar=False)
    after = model.impute(missing="all", inplace=False)
    assert not np.array_equal(before["rna"], after["rna"])
    assert list(query.obs) == ["kind"]


def test_what_does_not_fit_the_reference_is_named(reference, make_adata, train):
    query = make_mudata(7, "one")
    with pytest.raises(TypeError, match="a model of MuData; got AnnData"):
        transferred(query["rna"], reference)
    with pytest.raises(TypeError, match="a model of AnnData; got MuData"):
        transferred(query, train(make_adata(), max_steps=2))
    other = mudata.MuData({"other": query["rna"]})
    other.obs["batch"] = "one"
    with pytest.raises(KeyError, match="no cells of"):
        transferred(other, reference)
    query["prot"].var_names = [f"antibody{i}" for i in range(N_PROTEINS)]
    with pytest.raises(ValueError, match=r"mdata\['prot'\] share none of the 6 genes"):
        transferred(query, reference)
