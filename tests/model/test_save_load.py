import inspect
import os
import subprocess
import sys
from dataclasses import replace

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scvi

from countsdiff import CountsDiffImputer
from countsdiff.core import RateHead, get_schedule
from countsdiff.model_files import ModelFileError


def all_kinds_of_cells(make_adata, hidden):
    adata = make_adata()
    rng = np.random.default_rng(7)
    adata.layers["hidden"] = hidden
    adata.obs["run"] = rng.integers(3, size=adata.n_obs)
    adata.obs["treated"] = rng.random(adata.n_obs) < 0.5
    adata.obs["dose"] = pd.Categorical(rng.choice([0.5, 2.0], adata.n_obs))
    adata.obs["depth"] = rng.gamma(2.0, 0.5, adata.n_obs)
    return adata


SETUP = {
    "missing_layer": "hidden",
    "batch_key": "run",
    "labels_key": "kind",
    "size_factor_key": "depth",
    "categorical_covariate_keys": ["treated", "dose", "batch"],
    "continuous_covariate_keys": ["age"],
}


def two_modalities(make_adata):
    rna, prot = make_adata(), make_adata(n_obs=60, n_vars=4, seed=1)
    mdata = md.MuData({"rna": rna, "prot": prot})
    mdata.obs["kind"] = np.random.default_rng(0).choice(["a", "b"], mdata.n_obs)
    mdata.obs["run"] = np.random.default_rng(1).integers(2, size=mdata.n_obs)
    return mdata


@pytest.fixture(scope="module", params=["AnnData", "MuData"])
def whole(request, make_adata, hidden, train):
    """A trained model with every kind of covariate, its data, and a factory of fresh ones."""
    if request.param == "AnnData":
        adata = all_kinds_of_cells(make_adata, hidden)
        return train(adata, **SETUP), lambda: all_kinds_of_cells(make_adata, hidden)
    mdata = two_modalities(make_adata)
    CountsDiffImputer.setup_mudata(mdata, labels_key="kind", categorical_covariate_keys=["run"])
    model = CountsDiffImputer(mdata, width=16)
    model.train(10, batch_size=32, enable_progress_bar=False)
    return model, lambda: two_modalities(make_adata)


def predictions(model, data):
    """Everything a model says of data, side by side."""
    answers = [
        model.impute(data, inplace=False, return_std=True),
        model.impute(data, inplace=False, output="sample", seed=3),
        model.denoise(data, inplace=False),
    ]

    def flat(answer):
        return [a for part in answer.values() for a in flat(part)] if isinstance(answer, dict) else [answer]

    generated = model.generate(7, seed=5)
    tables = generated.mod.values() if isinstance(generated, md.MuData) else [generated]
    return np.concatenate([a.ravel() for a in flat(dict(enumerate(answers)))] + [t.X.toarray().ravel() for t in tables])


def test_a_loaded_model_says_the_same_to_the_last_bit(whole, tmp_path, no_pickle):
    model, fresh = whole
    data = fresh()
    expected = predictions(model, data)
    model.save(tmp_path / "model", save_anndata=True, prefix="my_")
    model.save(tmp_path / "again", save_anndata=False)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    data_file = "my_adata.h5ad" if isinstance(data, ad.AnnData) else "my_mdata.h5mu"
    assert names == {"my_model.json", "my_model.safetensors", data_file}
    for loaded in (
        CountsDiffImputer.load(tmp_path / "model", prefix="my_"),
        CountsDiffImputer.load(str(tmp_path / "again"), data),
        CountsDiffImputer.load(tmp_path / "again", adata=False),
    ):
        np.testing.assert_array_equal(predictions(loaded, data), expected)
        assert not loaded.module.training


def test_what_is_known_of_a_model_comes_back(whole, tmp_path):
    model, _ = whole
    model.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", adata=False)
    np.testing.assert_equal(loaded.registry_, dict(model.registry_))
    np.testing.assert_equal(CountsDiffImputer.load_registry(tmp_path / "model"), dict(model.registry_))
    assert loaded.init_params_ == model.init_params_
    assert loaded.summary_stats == model.summary_stats
    pd.testing.assert_frame_equal(loaded.design_, model.design_)
    assert loaded.history.keys() == model.history.keys()
    for name, history in model.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], history)
    for name in ("train_indices", "validation_indices", "test_indices"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    fields = model.registry_["field_registries"]
    found = loaded.registry_["field_registries"]
    for name, mapping in fields["extra_categorical_covs"]["state_registry"]["mappings"].items():
        assert found["extra_categorical_covs"]["state_registry"]["mappings"][name].dtype == mapping.dtype
    loaded.save(tmp_path / "again")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_load_without_data_then_impute_fresh_data(trained, query, saved):
    expected = trained.impute(query, inplace=False)
    loaded = CountsDiffImputer.load(saved, adata=False)
    with pytest.raises(ValueError, match="without data"):
        loaded.impute()
    with pytest.raises(ValueError, match="without data"):
        loaded.train()
    with pytest.raises(ValueError, match="without data"):
        loaded.save(saved.with_name("other"), save_anndata=True)
    with pytest.warns(UserWarning, match="no data were saved with the model"):
        assert CountsDiffImputer.load(saved).adata is None
    np.testing.assert_array_equal(loaded.impute(query, inplace=False), expected)


def test_training_goes_on_after_loading(query, saved):
    loaded = CountsDiffImputer.load(saved, query)
    before = loaded.impute(inplace=False)
    loaded.train(max_steps=12, batch_size=32, enable_progress_bar=False)
    assert (loaded.impute(inplace=False) != before).any()


def test_untrained_models_can_be_saved(make_adata, tmp_path):
    CountsDiffImputer(make_adata(), width=8).save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", adata=False)
    assert (loaded.is_trained, loaded.history, loaded.train_indices) == (False, None, None)


def test_one_column_may_be_batch_and_label(make_adata, train, tmp_path):
    model = train(make_adata(), max_steps=2, batch_key="kind", labels_key="kind")
    model.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", adata=False)
    assert list(loaded.generate(3, labels="a").obs["kind"]) == ["a"] * 3


def test_days_may_be_categories(make_adata, train, tmp_path):
    adata = make_adata()
    adata.obs["day"] = pd.to_datetime(np.where(adata.obs["kind"] == "a", "2020-01-01", "2020-01-05"))
    model = train(adata, max_steps=2, labels_key="day")
    model.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(predictions(loaded, adata), predictions(model, adata))


def test_names_and_numbers_may_come_from_numpy_and_pandas(make_adata, train, tmp_path):
    adata = make_adata()
    covariates = {"categorical_covariate_keys": adata.obs.columns[:2], "continuous_covariate_keys": ("age",)}
    model = train(adata, max_steps=2, model_kwargs={"seed": np.int64(3), "dropout": np.float32(0.5)}, **covariates)
    model.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", adata=False)
    np.testing.assert_array_equal(loaded.impute(adata, inplace=False), model.impute(inplace=False))


def test_a_covariate_that_no_cell_has_does_not_keep_a_model_from_being_saved(make_adata, train, tmp_path):
    adata = make_adata()
    adata.obs["age"] = np.nan
    model = train(adata, max_steps=2, continuous_covariate_keys=["age"])
    model.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", adata=False)
    np.testing.assert_array_equal(loaded.impute(adata, inplace=False), model.impute(inplace=False))


class TestData:
    """Given to load."""

    def test_genes_in_another_order_are_refused(self, query, saved):
        with pytest.raises(ValueError, match="in another order"):
            CountsDiffImputer.load(saved, query[:, ::-1].copy())

    def test_other_genes_are_refused(self, query, saved):
        query.var_names = [f"other{i}" for i in range(query.n_vars)]
        with pytest.raises(ValueError, match="genes the model was trained on"):
            CountsDiffImputer.load(saved, query)

    def test_have_to_be_of_the_model_s_kind(self, query, saved):
        with pytest.raises(ValueError, match="trained on AnnData; got MuData"):
            CountsDiffImputer.load(saved, md.MuData({"rna": query}))

    def test_saved_with_the_model_and_damaged_are_named(self, trained, tmp_path):
        trained.save(tmp_path / "model", save_anndata=True)
        path = tmp_path / "model" / "adata.h5ad"
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(ModelFileError, match=r"adata.h5ad: this file cannot be used, .*; give the data, load\("):
            CountsDiffImputer.load(tmp_path / "model")


class TestWriting:
    """Whole or not at all."""

    def test_an_existing_folder_is_left_alone_unless_asked(self, trained, saved):
        with pytest.raises(ValueError, match="already exists"):
            trained.save(saved)
        (saved / "notes.txt").write_text("mine")
        trained.save(saved, prefix="second_", overwrite=True)
        trained.save(saved, overwrite=True)
        expected = ["model.json", "model.safetensors", "notes.txt", "second_model.json", "second_model.safetensors"]
        assert sorted(os.listdir(saved)) == expected

    def test_a_file_is_not_written_over(self, trained, tmp_path):
        (tmp_path / "model").write_text("mine")
        with pytest.raises(ValueError, match="already exists"):
            trained.save(tmp_path / "model", overwrite=True)

    def test_arguments_for_data_need_data(self, trained, tmp_path):
        with pytest.raises(TypeError, match="'compression' is for writing data"):
            trained.save(tmp_path / "model", compression="gzip")

    @pytest.mark.parametrize("culprit", ["write_weights", "write_document", "digest"])
    def test_a_failure_leaves_the_older_model(self, trained, saved, query, monkeypatch, culprit):
        expected = CountsDiffImputer.load(saved, adata=False).impute(query, inplace=False)
        before = {path.name: path.read_bytes() for path in saved.iterdir()}

        def fail(*args):
            raise OSError("No space left on device")

        monkeypatch.setattr(f"countsdiff.model._saving.{culprit}", fail)
        for folder in (saved, saved.with_name("new")):
            with pytest.raises(OSError, match="No space"):
                trained.save(folder, overwrite=True, save_anndata=True)
        monkeypatch.undo()
        assert os.listdir(saved.parent) == ["model"]
        assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
        np.testing.assert_array_equal(CountsDiffImputer.load(saved, adata=False).impute(query, inplace=False), expected)

    def test_a_killed_save_leaves_the_older_model(self, saved, tmp_path):
        # the program dies where the new files are complete and none is in place
        program = f"""
import os, warnings
from countsdiff import CountsDiffImputer
model = CountsDiffImputer.load({str(saved)!r}, adata=False)
model.module.averaged.module.mean.mul_(2)
os.replace = lambda *paths: os._exit(9)
model.save({str(saved)!r}, overwrite=True)
"""
        before = {name: (saved / name).read_bytes() for name in ("model.json", "model.safetensors")}
        assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 9
        assert {name: (saved / name).read_bytes() for name in before} == before
        CountsDiffImputer.load(saved, adata=False)

    def test_what_json_has_no_word_for_is_named_and_nothing_written(self, make_adata, train, tmp_path):
        adata = make_adata()
        model = train(adata, max_steps=2)
        model.design_ = model.design_.assign(odd=[object() for _ in range(len(model.design_))])
        with pytest.raises(TypeError, match=r"design.odd\[0\] is of type builtins.object, which cannot be saved"):
            model.save(tmp_path / "model")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("part", ["schedule", "weight", "spacing", "backbone", "head"])
    def test_what_could_not_be_built_again_is_not_saved(self, make_adata, train, tmp_path, part):
        model = train(make_adata(), max_steps=2)
        changed = {"schedule": get_schedule("linear"), "weight": lambda value: value.p, "spacing": "t"}
        if part == "backbone":
            model.module.denoiser.backbone.__class__ = type("Mine", (type(model.module.denoiser.backbone),), {})
        elif part == "head":
            model.module.denoiser.__class__ = type("Mine", (type(model.module.denoiser),), {})
        else:
            model.module.times = replace(model.module.times, **{part: changed[part]})
        with pytest.raises(ValueError, match=f"The model's {part} is not '.*', which it was made with"):
            model.save(tmp_path / "model")
        assert not list(tmp_path.iterdir())

    def test_a_head_of_one_s_own_is_not_saved(self, make_adata, train, tmp_path):
        model = train(make_adata(), max_steps=2)
        model.module.denoiser.head = RateHead()
        with pytest.raises(ValueError, match="The model's head is not 'gamma', which it was made with"):
            model.save(tmp_path / "model")

    def test_weights_that_are_no_numbers_are_not_saved(self, make_adata, train, tmp_path):
        model = train(make_adata(), max_steps=2)
        model.module.averaged.module.mean[0] = np.nan
        with pytest.raises(ValueError, match=r"'averaged.module.mean' are not all numbers"):
            model.save(tmp_path / "model")
        assert not list(tmp_path.iterdir())


def test_the_setup_can_be_viewed(saved, capsys):
    CountsDiffImputer.view_setup_args(saved)
    assert "'labels_key': 'kind'" in capsys.readouterr().out


def test_scvi_hub_loads_a_folder(saved, query):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub = pytest.importorskip("scvi.hub")
    metadata = hub.HubMetadata("1.4.2", ad.__version__, "CountsDiffImputer", model_parent_module="countsdiff")
    folder = hub.HubModel(str(saved), metadata=metadata, model_card=huggingface_hub.ModelCard("---\n---\n"))
    folder.load_model(adata=query)
    assert folder.model.is_trained


def test_every_property_can_be_read(trained):
    # scvi-tools walks all attributes, and dies on a property that raises anything but AttributeError
    for name, _ in inspect.getmembers(type(trained), lambda value: isinstance(value, property)):
        getattr(trained, name, None)


def test_constructor_takes_plain_values_only(trained):
    assert all(
        isinstance(value, (str, int, float, bool, type(None))) for value in trained.init_params_["non_kwargs"].values()
    )


def test_methods_take_scvi_tools_arguments():
    # pipelines call any scvi-tools model with these
    for method in (CountsDiffImputer.impute, CountsDiffImputer.denoise):
        assert {"adata", "indices", "n_samples", "batch_size"} <= set(inspect.signature(method).parameters)
    ours = set(inspect.signature(CountsDiffImputer.setup_anndata).parameters)
    assert set(inspect.signature(scvi.model.SCVI.setup_anndata).parameters) <= ours
    for name, n in (("save", 5), ("load", 5)):
        ours, theirs = (
            list(inspect.signature(getattr(c, name)).parameters) for c in (CountsDiffImputer, scvi.model.SCVI)
        )
        assert ours[:n] == theirs[:n]


def test_data_read_back_from_disk_do_not_pass_for_the_original(make_adata, tmp_path):
    adata = make_adata()
    adata.layers["hidden"] = adata.X > 100
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    adata.write_h5ad(tmp_path / "data.h5ad")
    again = ad.read_h5ad(tmp_path / "data.h5ad")
    CountsDiffImputer.setup_anndata(again)
    # scvi-tools keeps one registration per uuid, which a copy brings along: it must not take the original's
    assert CountsDiffImputer(adata).registry_["setup_args"]["missing_layer"] == "hidden"
    assert CountsDiffImputer(again).registry_["setup_args"]["missing_layer"] is None


def test_numbers_may_be_numpy_s(make_adata, tmp_path):
    adata = make_adata()
    model = CountsDiffImputer(adata, width=np.int64(16), dropout=np.float32(0.5))
    model.train(
        np.int64(6),
        batch_size=np.int64(32),
        lr=np.float32(1e-3),
        weight_decay=np.float64(1.0),
        share_hidden=np.float32(0.5),
        validation_size=np.float32(0.25),
        accumulate_grad_batches=np.int64(1),
        enable_progress_bar=False,
        resume=tmp_path / "training.ckpt",
    )
    model.save(tmp_path / "model")
    again = CountsDiffImputer.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(again.impute(adata, inplace=False), model.impute(adata, inplace=False))
