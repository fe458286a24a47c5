"""Several modalities in one model: each at its own depth, absent ones imputed, results back where they belong."""

import warnings

import mudata
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse, stats

from countsdiff import CountsDiffImputer
from countsdiff.core import Context, Denoiser, Intensity
from countsdiff.counts import CellReader
from countsdiff.model._balance import precision, variable_weights
from countsdiff.model._hide import hide
from countsdiff.model._statistics import gene_statistics

N_OBS, LACKING = 300, 60


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def make_mudata(seed: int = 0) -> mudata.MuData:
    """Two kinds of cells, of different RNA and protein depths; the last sixty lack proteins, ten others peaks."""
    rng = np.random.default_rng(seed)
    law = np.random.default_rng(42)
    kind = rng.integers(2, size=N_OBS)
    tables = {}
    for name, n_vars, level in (("rna", 25, 2.0), ("prot", 6, 40.0), ("atac", 80, 0.05)):
        rates = law.gamma(1.0, level, size=(2, n_vars))
        depth = rng.gamma(4.0, 0.25, size=(N_OBS, 1))
        table = AnnData(sparse.csr_matrix(rng.poisson(depth * rates[kind]).astype(np.float32)))
        table.obs_names = [f"cell{i}" for i in range(N_OBS)]
        table.var_names = [f"{name}{j}" for j in range(n_vars)]
        tables[name] = table
    tables["rna"].layers["counts"] = tables["rna"].X.copy()
    order = np.random.default_rng(1).permutation(N_OBS - LACKING)
    tables["prot"] = tables["prot"][order].copy()
    tables["atac"] = tables["atac"][10:].copy()
    mdata = mudata.MuData(tables)
    mdata.obs["kind"] = [f"kind{k}" for k in kind[[int(n[4:]) for n in mdata.obs_names]]]
    return mdata


@pytest.fixture(scope="module")
def model():
    mdata = make_mudata()
    CountsDiffImputer.setup_mudata(mdata, layers={"rna": "counts", "prot": None, "atac": None})
    model = CountsDiffImputer(mdata, width=32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(max_steps=250, batch_size=32, enable_progress_bar=False)
    return model


def test_every_group_has_a_size_factor_of_its_own(generator):
    def backbone(evidence):
        backbone.summary = evidence.summary
        return torch.zeros_like(evidence.log_ratio), torch.zeros_like(evidence.log_ratio)

    mean, n_rna = torch.tensor([1.0, 3.0, 10.0, 30.0]), 2
    module = torch.nn.Module()
    module.forward = backbone
    denoiser = Denoiser(module, mean, torch.full((4,), 2.0), "rate", [n_rna, 2])
    counts = torch.tensor([[4.0, 4.0, 20.0, 0.0]])
    known = torch.tensor([[True, True, True, False]])
    context = Context(counts, known, ~known, torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0))
    mu = denoiser(torch.zeros(1, 4), torch.zeros(1, 1), context).mean
    size_rna, size_protein = 8.1 / 4.1, 20.1 / 10.1
    torch.testing.assert_close(mu, mean * torch.tensor([[size_rna] * 2 + [size_protein] * 2]))
    expected = [0.0, np.log(size_rna), np.log(size_protein), 1.0, 0.25]
    torch.testing.assert_close(backbone.summary, torch.tensor([expected], dtype=torch.float32))


def test_statistics_are_those_of_each_group_alone():
    rng = np.random.default_rng(0)
    counts = np.hstack([rng.poisson(2.0, (50, 4)), rng.poisson(30.0 * rng.gamma(1, 1, (50, 1)), (50, 3))]).astype("f4")
    joint = gene_statistics(CellReader(counts), [4, 3])
    parts = [gene_statistics(CellReader(counts[:, s]), [n]) for s, n in ((slice(4), 4), (slice(4, 7), 3))]
    torch.testing.assert_close(joint.mean, torch.cat([p.mean for p in parts]))
    torch.testing.assert_close(joint.dispersion, torch.cat([p.dispersion for p in parts]))


def test_layers_of_every_modality_keep_what_was_observed(model):
    mdata = make_mudata()
    model.impute(mdata)
    for name, layer in (("rna", "counts"), ("prot", None), ("atac", None)):
        table = mdata[name]
        counts = table.X if layer is None else table.layers[layer]
        np.testing.assert_array_equal(dense(table.layers["imputed"]), dense(counts))
    assert "rna_imputed" not in mdata.obsm  # no cell lacks RNA
    proteins = dense(mdata.obsm["prot_imputed"])
    assert proteins.shape == (N_OBS, 6)
    there = mdata.obsm["prot"].ravel()
    names = mdata.obs_names[there]
    np.testing.assert_array_equal(proteins[there], dense(mdata["prot"][names].X))
    assert (proteins[~there] > 0).all()
    record = mdata.uns["countsdiff"]["imputed"]
    assert record["n_imputed"] == LACKING * 6 + 10 * 80
    assert record["layer"] == {"rna": "counts", "prot": "X", "atac": "X"}


def test_absent_proteins_are_predicted_from_rna(model):
    # what the cells without proteins have is known: the same draw before they were taken away
    rng, law = np.random.default_rng(0), np.random.default_rng(42)
    kind = rng.integers(2, size=N_OBS)
    law.gamma(1.0, 2.0, size=(2, 25))
    rates = law.gamma(1.0, 40.0, size=(2, 6))
    mdata = make_mudata()
    proteins = model.impute(mdata, inplace=False)["prot"]
    lacking = [int(n[4:]) for n in mdata.obs_names[~mdata.obsm["prot"].ravel()]]
    predicted = proteins[~mdata.obsm["prot"].ravel()]
    error = np.abs(np.log(predicted / rates[kind[lacking]]))
    wrong = np.abs(np.log(predicted / rates[1 - kind[lacking]]))
    assert np.median(error) < 0.5 * np.median(wrong)
    draws = model.impute(mdata, output="sample", n_samples=2, inplace=False)["prot"]
    assert draws.shape == (2, N_OBS, 6)
    np.testing.assert_array_equal(draws, np.round(draws))


def test_log_mean_keeps_the_depth_of_every_modality(model):
    mdata = make_mudata()
    log_mean, mean = (model.impute(mdata, missing="all", output=o, inplace=False) for o in ("log_mean", "mean"))
    for modality in ("rna", "prot", "atac"):
        np.testing.assert_allclose(dense(log_mean[modality]).sum(1), dense(mean[modality]).sum(1), rtol=1e-4)


def test_expression_of_every_modality_at_a_depth_of_its_own(model):
    mdata = make_mudata()
    rates = model.denoise(mdata, inplace=False)
    expression = model.get_normalized_expression(mdata, library_size=100)
    assert list(expression) == ["rna", "prot", "atac"]
    for name, table in expression.items():
        assert list(table.index) == list(mdata.obs_names)
        assert list(table.columns) == list(model.get_var_names()[name])
    np.testing.assert_allclose(expression["rna"], 100 * rates["rna"] / rates["rna"].sum(1, keepdims=True), rtol=1e-4)
    some = model.get_normalized_expression(mdata, [7, 2], gene_list=["prot3", "rna4", "prot1"], library_size="latent")
    assert list(some) == ["rna", "prot"]
    assert list(some["prot"].columns) == ["prot3", "prot1"]
    proteins = {name: j for j, name in enumerate(mdata["prot"].var_names)}
    columns = [proteins["prot3"], proteins["prot1"]]
    np.testing.assert_allclose(some["prot"], rates["prot"][[7, 2]][:, columns], rtol=1e-5)
    draws = model.get_normalized_expression(mdata, range(3), n_samples=4, return_mean=False)
    assert {name: draw.shape for name, draw in draws.items()} == {
        "rna": (4, 3, 25),
        "prot": (4, 3, 6),
        "atac": (4, 3, 80),
    }
    for draw in draws.values():
        np.testing.assert_allclose(draw.sum(2), 1.0, rtol=1e-4)
    with pytest.raises(ValueError, match="'nix' is none of the data"):
        model.get_normalized_expression(mdata, gene_list=["rna1", "nix"])


def test_modalities_and_variables_in_another_order(model):
    mdata = make_mudata()
    expected = model.impute(mdata, inplace=False)
    order = np.random.default_rng(0).permutation(25)
    tables = {name: mdata[name].copy() for name in ("atac", "prot")} | {"rna": mdata["rna"][:, order].copy()}
    other = mudata.MuData(tables)[mdata.obs_names].copy()
    model.denoise(other)
    denoised = model.denoise(mdata, inplace=False)
    row = {name: i for i, name in enumerate(mdata.obs_names)}
    for name, table in other.mod.items():
        columns = order if name == "rna" else slice(None)
        rows = [row[cell] for cell in table.obs_names]
        np.testing.assert_allclose(dense(table.layers["denoised"]), denoised[name][rows][:, columns], rtol=1e-5)
    assert set(expected) == {"rna", "prot", "atac"}


def test_what_is_returned_has_the_order_of_the_data(model):
    mdata = make_mudata()
    mdata = mudata.MuData({name: table[:, ::-1].copy() for name, table in mdata.mod.items()})
    returned = model.impute(mdata, inplace=False, missing="zeros")
    model.impute(mdata, missing="zeros")
    for name, table in mdata.mod.items():
        there = np.flatnonzero(np.asarray(mdata.obsmap[name]).ravel())
        rows = np.asarray(mdata.obsmap[name]).ravel()[there].astype(int) - 1
        np.testing.assert_array_equal(returned[name][there], dense(table.layers["imputed"])[rows])


def test_tables_that_were_changed_are_read_anew(model):
    mdata = make_mudata()
    CountsDiffImputer.setup_mudata(mdata, layers={"rna": "counts", "prot": None, "atac": None})
    model.impute(mdata)
    x = dense(mdata["prot"].X).astype(np.float32)
    x[:5] = np.nan
    mdata["prot"].X = x
    model.impute(mdata, key_added="again", interval=0.9)
    assert mdata.uns["countsdiff"]["again"]["rewrite"] == "missing"
    assert np.isfinite(dense(mdata["prot"].layers["again"])[:5]).all()
    copied = mdata.copy()
    model.impute(copied, key_added="of a copy")
    for name in mdata.mod:
        np.testing.assert_array_equal(*(dense(m[name].layers[k]) for m, k in ((mdata, "again"), (copied, "of a copy"))))
    # and a result takes the place of another by its name, with all that belonged to it
    model.impute(mdata, key_added="again")
    assert "again_lower" not in mdata["rna"].layers
    assert "prot_again_lower" not in mdata.obsm


@pytest.mark.parametrize("how", ["absent", "no rows"])
def test_cells_of_one_modality_alone(model, how):
    rna = make_mudata()["rna"]
    tables = {"rna": rna.copy()} | ({} if how == "absent" else {"prot": make_mudata()["prot"][:0].copy()})
    mdata = mudata.MuData(tables)
    model.impute(mdata, output="sample")
    marked = mudata.MuData({"rna": rna.copy(), "prot": AnnData(np.full((N_OBS, 6), np.nan, dtype=np.float32))})
    marked["prot"].obs_names, marked["prot"].var_names = rna.obs_names, make_mudata()["prot"].var_names
    marked.update()
    model.impute(marked, output="sample")
    np.testing.assert_array_equal(dense(mdata.obsm["prot_imputed"]), dense(marked["prot"].layers["imputed"]))
    assert mdata.uns["countsdiff"]["imputed"]["rewrite"] == "missing"
    with pytest.raises(KeyError, match="no cells of"):
        model.impute(mudata.MuData({"other": rna.copy()}))


def test_tables_on_disk(model, tmp_path):
    mdata = make_mudata()
    expected = model.impute(mdata, inplace=False)
    mdata.write_h5mu(tmp_path / "a.h5mu")
    backed = mudata.read_h5mu(tmp_path / "a.h5mu", backed="r")
    CountsDiffImputer.setup_mudata(backed, layers={"rna": None, "prot": None, "atac": None})
    assert CountsDiffImputer(backed).summary_stats["n_vars"] == sum(t.n_vars for t in mdata.mod.values())
    for name, matrix in model.impute(backed, inplace=False).items():
        np.testing.assert_array_equal(matrix, expected[name])


def test_hidden_entries_by_modality_are_not_looked_at(model):
    mdata = make_mudata()
    hidden = np.random.default_rng(0).random(mdata["prot"].shape) < 0.5
    before = model.impute(mdata, missing={"prot": hidden}, inplace=False)
    poisoned = make_mudata()
    x = dense(poisoned["prot"].X).copy()
    x[hidden] = 777
    poisoned["prot"].X = x
    after = model.impute(poisoned, missing={"prot": hidden}, inplace=False)
    there = np.flatnonzero(mdata.obsm["prot"].ravel())
    for m in (before, after):
        m["prot"] = m["prot"][there][np.argsort(mdata.obsmap["prot"].ravel()[there])]
    np.testing.assert_array_equal(before["prot"][hidden], after["prot"][hidden])
    with pytest.raises(ValueError, match="'prot' has shape"):
        model.impute(mdata, missing={"prot": hidden[:5]})


def test_save_load_generate(model, tmp_path):
    model.save(tmp_path / "model")
    mdata = make_mudata()
    loaded = CountsDiffImputer.load(tmp_path / "model", mdata)
    for name, matrix in model.impute(make_mudata(), inplace=False).items():
        np.testing.assert_array_equal(loaded.impute(inplace=False)[name], matrix)
    cells = CountsDiffImputer.load(tmp_path / "model", adata=False).generate(200, n_steps=5)
    assert {name: table.shape for name, table in cells.mod.items()} == {
        "rna": (200, 25),
        "prot": (200, 6),
        "atac": (200, 80),
    }
    assert "counts" in cells["rna"].layers
    real, generated = (np.log(dense(m["prot"].X).mean(0)) for m in (mdata, cells))
    assert stats.pearsonr(real, generated).statistic > 0.8


def test_covariates_of_mudata(tmp_path):
    mdata = make_mudata()
    CountsDiffImputer.setup_mudata(mdata, layers={"rna": None, "prot": None}, labels_key="kind")
    model = CountsDiffImputer(mdata, width=16)
    model.train(max_steps=5, batch_size=64, enable_progress_bar=False)
    assert set(model.impute(inplace=False)) == {"rna", "prot"}
    assert (model.generate(3, labels="kind1", n_steps=1).obs["kind"] == "kind1").all()


def test_a_modality_may_be_named_alone():
    mdata = make_mudata()
    CountsDiffImputer.setup_mudata(mdata, layers="rna")
    assert CountsDiffImputer(mdata).get_var_names()["rna"].tolist() == mdata["rna"].var_names.tolist()


def test_categories_are_all_text_or_all_numbers():
    mdata = make_mudata()
    mdata.obs["batch"] = np.array([1, "a"], dtype=object)[np.arange(N_OBS) % 2]
    with pytest.raises(ValueError, match=r"'batch'.* mixes text and numbers; make all of it text"):
        CountsDiffImputer.setup_mudata(mdata, batch_key="batch")
    mdata.obs["batch"] = np.arange(N_OBS) % 2
    CountsDiffImputer.setup_mudata(mdata, batch_key="batch")
    assert CountsDiffImputer(mdata).summary_stats["n_batch"] == 2


def test_bad_input_is_named(model):
    mdata = make_mudata()
    mdata["prot"].X = dense(mdata["prot"].X) + 0.5
    with pytest.raises(ValueError, match=r"mdata\['prot'\].X .*prot0.*not a whole number"):
        CountsDiffImputer.setup_mudata(mdata)
    with pytest.raises(ValueError, match=r"names no modality; there are \['rna'"):
        CountsDiffImputer.setup_mudata(make_mudata(), layers={})
    with pytest.raises(KeyError, match="'protein'.*'prot'"):
        CountsDiffImputer.setup_mudata(make_mudata(), layers={"protein": None})
    with pytest.raises(TypeError, match="got AnnData; use setup_anndata"):
        CountsDiffImputer.setup_mudata(make_mudata()["rna"])
    with pytest.raises(ValueError, match="got AnnData"):
        model.impute(make_mudata()["rna"].copy())
    with pytest.raises(TypeError, match="AnnData"):
        model.posterior_predictive_sample()
    with pytest.raises(ValueError, match="setup_mudata"):
        CountsDiffImputer(make_mudata())


def test_a_complete_modality_has_no_result_of_when_it_was_not(model):
    mdata = make_mudata()
    model.impute(mdata)
    whole = mdata[mdata["prot"].obs_names].copy()
    assert "prot_imputed" in whole.obsm
    model.impute(whole, missing="all")
    assert "prot_imputed" not in whole.obsm


def test_data_that_nobody_set_up_stay_as_they_are(model):
    mdata = make_mudata(seed=3)
    obsm, obs = list(mdata.obsm), list(mdata.obs)
    model.impute(mdata, inplace=False)
    model.get_normalized_expression(mdata)
    assert (list(mdata.obsm), list(mdata.obs), list(mdata.uns)) == (obsm, obs, [])


def test_missing_entries_of_modalities_by_name(model):
    mdata = make_mudata()
    hidden = np.zeros(mdata["prot"].shape, dtype=bool)
    hidden[:, 0] = True
    mdata["prot"].layers["hidden"] = hidden
    by_layer, by_matrix = (
        model.impute(mdata, missing={"prot": missing}, inplace=False)["prot"] for missing in ("hidden", hidden)
    )
    np.testing.assert_array_equal(by_layer, by_matrix)
    with pytest.raises(KeyError, match="no modality 'protein'"):
        model.impute(mdata, missing={"protein": hidden})
    with pytest.raises(ValueError, match="hidden"):  # results would take the place of the marks they come from
        model.impute(mdata, missing={"prot": "hidden"}, key_added="hidden")
    assert mdata["prot"].layers["hidden"].dtype == bool


def test_training_hides_whole_modalities():
    sizes, generator = (40, 70, 50), torch.Generator().manual_seed(0)
    observed = torch.ones(30_000, 160, dtype=torch.bool)
    observed[10_000:20_000, :40] = False  # cells without the first
    observed[20_000:, 40:] = False  # cells with nothing but the first
    parts = hide(observed, sizes, generator).split(sizes, 1)
    hidden, shown = (torch.stack([x(p) for p in parts], 1) for x in (lambda p: p.all(1), lambda p: ~p.any(1)))
    complete, some, one = (slice(k, k + 10_000) for k in (0, 10_000, 20_000))

    def share_hidden(rows, columns):
        """Of these cells, those that have whole modalities hidden and others shown."""
        h, s = hidden[rows, columns], shown[rows, columns]
        return float(((h | s).all(1) & h.any(1) & s.any(1)).float().mean())

    assert share_hidden(complete, slice(None)) == pytest.approx(0.4, abs=0.02)
    assert share_hidden(some, slice(1, None)) == pytest.approx(0.4, abs=0.03)
    # as often one as two of three, each as often as the others
    whole = hidden[complete][(hidden | shown)[complete].all(1) & shown[complete].any(1)]
    assert float((whole.sum(1) == 1).float().mean()) == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(whole.float().mean(0), torch.full((3,), 0.5), atol=0.03, rtol=0)
    # where there is one, scattered entries as ever
    assert float((hidden | shown)[one, 0].float().mean()) < 0.6


def test_training_weighs_modalities_alike(model):
    denoiser = model.module.denoiser
    sizes = denoiser.group_sizes
    shares = torch.stack([part.sum() for part in variable_weights(denoiser).split(sizes)])
    torch.testing.assert_close(shares, torch.full((3,), sum(sizes) / 3))


def test_training_weighs_entries_by_their_precision(model):
    denoiser, to_go = model.module.denoiser, torch.tensor([[1.0], [0.5]])
    poisson_over_variance = 1 / (1 + denoiser.mean / denoiser.dispersion)
    expected = Intensity(denoiser.mean.expand(2, -1), denoiser.dispersion.expand(2, -1))
    torch.testing.assert_close(precision(denoiser, expected, to_go)[0], poisson_over_variance)
    # the entry's own part: half as much to go, or a shape twice as large, is half the excess variance
    twice = Intensity(expected.mean, 2 * denoiser.dispersion.expand(2, -1))
    torch.testing.assert_close(precision(denoiser, expected, to_go)[1], precision(denoiser, twice, to_go)[0])
    own = (precision(denoiser, twice, to_go)[0] ** 2 / poisson_over_variance) ** -1
    torch.testing.assert_close(own, 1 + denoiser.mean / (2 * denoiser.dispersion))
    # heads that predict no shape take that of the variable
    torch.testing.assert_close(
        precision(denoiser, Intensity(expected.mean), to_go), precision(denoiser, expected, to_go)
    )


class TestRefused:
    def test_tables_in_another_order_than_noted(self, model):
        mdata = make_mudata()
        mdata.mod["rna"] = mdata["rna"][::-1].copy()
        with pytest.raises(ValueError, match=r"mdata\['rna'\] has other cells, or another order.*update"):
            CountsDiffImputer.setup_mudata(mdata, layers={"rna": "counts"})
        mdata = make_mudata()
        mdata.mod["prot"] = mdata["prot"][:9].copy()
        with pytest.raises(ValueError, match=r"mdata\['prot'\] has other cells"):
            model.denoise(mdata)
        mdata.update()
        assert {name: part.shape for name, part in model.denoise(mdata, inplace=False).items()}["prot"] == (N_OBS, 6)

    def test_shared_genes(self):
        parts = {name: make_mudata()["rna"].copy() for name in "ab"}
        for name, part in parts.items():
            part.obs_names = name + part.obs_names
        with pytest.raises(ValueError, match="of the same cells"):
            CountsDiffImputer.setup_mudata(mudata.MuData(parts, axis=1))

    def test_names_that_are_the_same_once_joined(self):
        tables = {"a": make_mudata()["rna"].copy(), "a:b": make_mudata()["rna"].copy()}
        tables["a"].var_names = [f"b:rna{j}" for j in range(25)]
        with pytest.raises(ValueError, match="Two variables would be called 'a:b:rna0'"):
            CountsDiffImputer.setup_mudata(mudata.MuData(tables))

    def test_views_and_absent_layers(self):
        mdata = make_mudata()
        with pytest.raises(ValueError, match=r"view.*mdata.copy\(\)"):
            CountsDiffImputer.setup_mudata(mdata[:50])
        with pytest.raises(KeyError, match=r"mdata\['prot'\]: adata.layers has no 'counts'"):
            CountsDiffImputer.setup_mudata(mdata, layers={"rna": "counts", "prot": "counts"})
