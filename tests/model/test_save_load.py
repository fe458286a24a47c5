import inspect

import anndata as ad
import numpy as np
import pytest
import scvi

from countsdiff import CountsDiffImputer


def test_round_trip(trained, query, tmp_path):
    trained.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", query)
    for options in ({}, {"output": "sample", "seed": 3}):
        expected = trained.impute(query, inplace=False, **options)
        np.testing.assert_array_equal(loaded.impute(inplace=False, **options), expected)


def test_load_without_data_then_impute_fresh_data(trained, query, tmp_path):
    trained.save(tmp_path / "model")
    expected = trained.impute(query, inplace=False)
    loaded = CountsDiffImputer.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match="without data"):
        loaded.impute()
    with pytest.raises(ValueError, match="without data"):
        loaded.train()
    np.testing.assert_array_equal(loaded.impute(query, inplace=False), expected)


def test_training_goes_on_after_loading(trained, query, tmp_path):
    trained.save(tmp_path / "model")
    loaded = CountsDiffImputer.load(tmp_path / "model", query)
    before = loaded.impute(inplace=False)
    loaded.train(max_steps=12, batch_size=32, enable_progress_bar=False)
    assert (loaded.impute(inplace=False) != before).any()


def test_every_property_can_be_read(trained):
    # saving walks all attributes, and dies on a property that raises anything but AttributeError
    for name, _ in inspect.getmembers(type(trained), lambda value: isinstance(value, property)):
        getattr(trained, name, None)


def test_foreign_model_is_refused(make_adata, tmp_path):
    adata = make_adata()
    scvi.model.SCVI.setup_anndata(adata)
    scvi.model.SCVI(adata).save(tmp_path / "scvi")
    with pytest.raises(ValueError, match="model.pt: this is a model of scvi-tools"):
        CountsDiffImputer.load(tmp_path / "scvi", adata)


def test_constructor_takes_plain_values_only(trained):
    assert all(
        isinstance(value, (str, int, float, bool, type(None))) for value in trained.init_params_["non_kwargs"].values()
    )


def test_inference_methods_take_scvi_tools_arguments():
    # pipelines call any scvi-tools model with these
    for method in (CountsDiffImputer.impute, CountsDiffImputer.denoise):
        assert {"adata", "indices", "n_samples", "batch_size"} <= set(inspect.signature(method).parameters)
    ours = set(inspect.signature(CountsDiffImputer.setup_anndata).parameters)
    assert set(inspect.signature(scvi.model.SCVI.setup_anndata).parameters) <= ours


def test_data_read_back_from_disk_do_not_pass_for_the_original(make_adata, tmp_path):
    adata = make_adata()
    adata.layers["hidden"] = adata.X > 100
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    adata.write_h5ad(tmp_path / "data.h5ad")
    again = ad.read_h5ad(tmp_path / "data.h5ad")
    CountsDiffImputer.setup_anndata(again)
    # scvi-tools keeps one registration per uuid, which the copy has taken over: an error, never another registration
    with pytest.raises(ValueError, match="Did you make a copy"):
        CountsDiffImputer(adata)
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    assert CountsDiffImputer(adata).registry_["setup_args"]["missing_layer"] == "hidden"
