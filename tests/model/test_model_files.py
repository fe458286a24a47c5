"""Files that are not what they should be: one error, which names the file and says what to do."""

import json
import shutil

import numpy as np
import pytest
import scvi
import torch
from safetensors.torch import load_file, save_file

from countsdiff import CountsDiffImputer
from countsdiff.files import digest
from countsdiff.model import _record
from countsdiff.model_files import ModelFileError, read_document, write_document


def forge(folder, change):
    """Change what a record says, and sign it."""
    content = read_document(folder / "model.json", _record.FORMAT)
    change(content)
    content["weights_sha256"] = digest(folder / "model.safetensors")
    write_document(content, folder / "model.json", _record.FORMAT)


def entry(*path, to):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


FIELDS = ("registry", "field_registries")
FORGED = {
    "of another class": (entry("class_name", to="SCVI"), "holds a model of the class 'SCVI', not 'CountsDiffImputer'"),
    "a method to call": (entry("registry", "setup_method_name", to="convert_legacy_save"), "none of 'setup_anndata'"),
    "unknown setting": (entry("settings", "size", to=3), "settings are head, .*, not head"),
    "unknown head": (entry("settings", "head", to="tail"), "settings.head is 'tail'"),
    "width of another type": (entry("settings", "width", to="32"), "settings.width is '32'"),
    "absurd width": (entry("settings", "width", to=10**9), "of shape .*1000000000"),
    "more than any width": (entry("settings", "width", to=10**40), "Overflow"),
    "absurd depth": (entry("settings", "depth", to=10**12), "a network of depth 1000000000000"),
    "other schedule": (entry("settings", "schedule", to="slow"), "Unknown schedule 'slow'"),
    "other arguments of the set-up": (entry("registry", "setup_args", "shape", to=1), "setup_args are"),
    "absurd number of genes": (entry(*FIELDS, "X", "summary_stats", "n_vars", to=10**12), "n_vars is 1000000000000"),
    "no column names": (entry(*FIELDS, "X", "state_registry", "column_names", to=None), "X.column_names is None"),
    "genes that are numbers": (
        entry(*FIELDS, "X", "state_registry", "column_names", to=np.arange(30)),
        "not of type str",
    ),
    "another number of batches": (entry(*FIELDS, "batch", "summary_stats", "n_batch", to=7), "n_batch is 7, and 3"),
    "categories that repeat": (
        entry(*FIELDS, "labels", "state_registry", "categorical_mapping", to=np.array(["a", "a"], object)),
        "categories repeat",
    ),
    "fewer categories": (
        lambda content: (
            entry(*FIELDS, "batch", "summary_stats", "n_batch", to=2)(content),
            entry(*FIELDS, "batch", "state_registry", "categorical_mapping", to=np.array(["x", "y"], object))(content),
        ),
        "the model described",
    ),
    "a covariate that was not set up": (
        entry("registry", "setup_args", "continuous_covariate_keys", to=["b"]),
        "not those",
    ),
    "no cells to generate from": (lambda content: content.update(design=content["design"][:0]), "0 rows"),
    "text for a number": (
        lambda content: content.update(design=content["design"].assign(age="x")),
        "could not convert string to float",
    ),
    "not a table": (entry("design", to=[1, 2]), "content.design is"),
    "trained, perhaps": (entry("is_trained", to="perhaps"), "content.is_trained is 'perhaps', not of type bool"),
    "indices that are text": (entry("train_indices", to=np.array(["a"], object)), "train_indices are of type object"),
    "no registry": (entry("registry", to={}), "content.registry does not have the entries"),
    "nothing": (lambda content: content.clear(), "holds a model of the class None"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_record_that_does_not_hold_together_is_refused(saved, name):
    change, says = FORGED[name]
    forge(saved, change)
    with pytest.raises(ModelFileError, match=f"model\\.(json|safetensors): this file cannot be used, .*{says}"):
        CountsDiffImputer.load(saved, adata=False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(saved, value):
    state = load_file(saved / "model.safetensors")
    state["averaged.module.backbone.encode.weight"][0, 0] = value
    save_file(state, saved / "model.safetensors")
    forge(saved, lambda content: None)
    with pytest.raises(
        ModelFileError, match=r"model.safetensors: the weights of 'averaged.module.backbone.encode.weight'"
    ):
        CountsDiffImputer.load(saved, adata=False)


def test_weights_of_another_model_are_refused(saved, make_adata, train, tmp_path):
    train(make_adata(), max_steps=2).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(ModelFileError, match=r"model.safetensors: .* not the one that model.json was written with"):
        CountsDiffImputer.load(saved, adata=False)
    forge(saved, lambda content: None)
    with pytest.raises(ModelFileError, match=r"model.safetensors: .*model described"):
        CountsDiffImputer.load(saved, adata=False)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelFileError, match=f"no saved model in this folder, {name} is missing"):
        CountsDiffImputer.load(saved, adata=False)


def test_a_flipped_bit_is_noticed(saved):
    data = bytearray((saved / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (saved / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelFileError, match="or was changed since; get an unchanged copy"):
        CountsDiffImputer.load(saved, adata=False)


def test_a_newer_format_asks_for_an_upgrade(saved):
    document = json.loads((saved / "model.json").read_text())
    known = _record.FORMAT.current
    (saved / "model.json").write_text(json.dumps({**document, "format_version": known + 1}))
    says = f"is in version {known + 1} of its format, and this countsdiff knows {known}; upgrade"
    with pytest.raises(ModelFileError, match=says):
        CountsDiffImputer.load(saved, adata=False)


def test_a_pickle_is_named_and_not_opened(make_adata, tmp_path, no_pickle):
    adata = make_adata()
    scvi.model.SCVI.setup_anndata(adata)
    scvi.model.SCVI(adata).save(tmp_path / "scvi")
    for load in (CountsDiffImputer.load, CountsDiffImputer.load_query_data, CountsDiffImputer.load_registry):
        arguments = (adata, tmp_path / "scvi") if load == CountsDiffImputer.load_query_data else (tmp_path / "scvi",)
        with pytest.raises(ModelFileError, match=r"model.pt: this is a model of scvi-tools.* train the model again"):
            load(*arguments)
    with pytest.raises(NotImplementedError, match="no models of an earlier scvi-tools"):
        CountsDiffImputer.convert_legacy_save(tmp_path / "scvi", tmp_path / "out")


def test_loading_touches_no_random_numbers_and_no_data_when_refused(saved, query):
    state, columns = torch.get_rng_state(), list(query.obs)
    CountsDiffImputer.load(saved, adata=False)
    assert torch.equal(torch.get_rng_state(), state)
    (saved / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError):
        CountsDiffImputer.load(saved, query)
    assert list(query.obs) == columns
