"""Docstrings of everything public: their examples run, and they describe the arguments there are."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import mudata
import numpy as np
import pytest
from anndata import AnnData
from numpydoc.docscrape import NumpyDocString

import countsdiff
from countsdiff import CountsDiffImputer

PACKAGES = ["", *"baselines benchmark core datasets distributed image metrics model nn pl pp store".split()]


def public_objects():
    """Functions and classes that the packages export, and public methods of these classes, by name."""
    objects = {}
    for package in PACKAGES:
        module = import_module(f"countsdiff.{package}".rstrip("."))
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing) or (inspect.isclass(thing) and thing.__module__.startswith("countsdiff")):
                objects[f"{thing.__module__}.{thing.__qualname__}"] = thing
    for thing in list(objects.values()):
        if inspect.isclass(thing):
            for base in thing.__mro__:
                for name, member in vars(base).items():
                    member = getattr(member, "__func__", member)  # of a class method
                    if inspect.isfunction(member) and member.__module__.startswith("countsdiff") and name[0] != "_":
                        objects[f"{base.__module__}.{member.__qualname__}"] = member
    return objects


OBJECTS = public_objects()
EXAMPLES = {
    name: test
    for name, thing in OBJECTS.items()
    for test in [doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", {}, name, None, 0)]
    if test.examples
}


def documented(thing, section):
    """Names of a section of a docstring; several may share a description."""
    entries = NumpyDocString(inspect.getdoc(thing))[section]
    return [name.strip().lstrip("*") for entry in entries for name in entry.name.split(",")]


def test_the_public_api_is_found():
    assert {"countsdiff.pp._impute.impute", "countsdiff.model._inference.PredictiveModel.deepen"} <= set(OBJECTS)
    assert len(OBJECTS) > 150


@pytest.mark.parametrize("name", OBJECTS)
def test_docstrings_are_whole(name):
    doc = inspect.getdoc(OBJECTS[name])
    assert doc, f"{name} has no docstring"
    assert not re.search(r"%\(\w+\)s", doc), f"{name}: a placeholder was not filled in"
    assert not re.search(r"^\w[\w ]* -{4,}", doc, re.MULTILINE), f"{name}: a heading shares its line with its underline"


def needs_a_description(name):
    """Methods may leave their arguments to the protocol or base class that they fulfil, those of the model may not."""
    thing = OBJECTS[name]
    if getattr(thing, "_is_protocol", False):
        return False
    is_method = inspect.isfunction(thing) and "." in thing.__qualname__
    return not is_method or name.startswith("countsdiff.model.") or bool(documented(thing, "Parameters"))


@pytest.mark.parametrize("name", filter(needs_a_description, OBJECTS))
def test_docstrings_describe_the_arguments_there_are(name):
    thing = OBJECTS[name]
    described = documented(thing, "Parameters") or documented(thing, "Attributes")
    arguments = {
        argument
        for argument, parameter in inspect.signature(thing).parameters.items()
        if argument not in ("self", "cls") and (parameter.kind is not parameter.VAR_KEYWORD or argument in described)
    }
    assert len(described) == len(set(described)), f"{name} describes an argument twice"
    assert set(described) == arguments


@pytest.fixture(scope="module")
def prepared(few_cells):
    """A trained model, and what else the examples take for granted."""
    rng = np.random.default_rng(0)
    hidden = rng.random(few_cells.shape) < 0.2
    adata = countsdiff.pp.hide_entries(few_cells, hidden, layer="counts")
    CountsDiffImputer.setup_anndata(adata, layer="counts", missing_layer="hidden", labels_key="cell_type")
    model = CountsDiffImputer(adata, width=32)
    model.train(max_steps=10, enable_progress_bar=False)
    rna = few_cells.copy()
    prot = AnnData(rng.poisson(20.0, size=(few_cells.n_obs, 4)).astype(np.float32), obs=few_cells.obs[[]])
    return {"adata": adata, "model": model, "rna": rna, "prot": prot}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.filterwarnings("ignore")  # ten steps of training on a hundred cells are nothing to trust
def test_examples_run(name, prepared, in_small, few_cells):
    prepared["model"].save("reference_model")
    few_cells.write_h5ad("atlas.h5ad")
    mdata = mudata.MuData({"rna": prepared["rna"].copy(), "prot": prepared["prot"].copy()})
    test = EXAMPLES[name]
    test.globs = {
        "np": np,
        "countsdiff": countsdiff,
        "CountsDiffImputer": CountsDiffImputer,
        "adata": few_cells.copy(),
        "model": prepared["model"],
        "query": few_cells[:, ::-1].copy(),
        "mdata": mdata,
    }
    complaints = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=complaints.append)
    assert not complaints, "".join(complaints)


def test_no_example_is_left_out():
    examples = [example for test in EXAMPLES.values() for example in test.examples]
    assert not [example for example in examples if doctest.SKIP in example.options]
    files = Path(countsdiff.__file__).parent.rglob("*.py")
    written = sum(line.lstrip().startswith(">>> ") for file in files for line in file.read_text().splitlines())
    assert written == len(examples)
