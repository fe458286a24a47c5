import json

import numpy as np
import pytest
from PIL import Image

from countsdiff.cli import main
from countsdiff.cli._image._evaluate import _in_proportion

CONFIG = """
widths: [8, 16]
depth: 1
attention: []
n_groups: 4
head: bounded
lr: 1.0e-1
warmup: 1
n_steps: 4
batch_size: 8
save_every: 2
sample_steps: 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set, a configuration and a model trained by the command line."""
    folder = tmp_path_factory.mktemp("image")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 3, 8, 8)).astype(np.uint8)
    np.savez(folder / "data.npz", images=images, labels=["cat", "dog"] * 15, partition=[0, 0, 2] * 10)
    (folder / "tiny.yaml").write_text(CONFIG)
    data = ("--data", str(folder / "data.npz"))
    assert main(["image", "train", str(folder / "tiny.yaml"), *data, "-o", str(folder / "run"), "-q"]) == 0
    return folder


def test_training_goes_on_where_it_was_stopped(run, folder):
    arguments = ("image", "train", folder / "tiny.yaml", "--data", folder / "data.npz", "--accelerator", "cpu")
    status, out, _ = run(*arguments, "-o", folder / "cut", "--max-minutes", "0")
    assert status == 0
    assert "Trained on 20 images of 3 × 8 × 8." in out
    assert "Not at the end yet; run again" in out
    status, out, _ = run(*arguments, "-o", folder / "cut", "-q")
    assert (status, out) == (0, "")
    for name in ("model.safetensors", "config.json"):
        assert (folder / "cut" / name).read_bytes() == (folder / "run" / name).read_bytes()


def test_sampling_draws_the_same_picture_again(run, folder):
    arguments = ("image", "sample", folder / "run", "-n", 5, "--label", "dog", "--guidance", "1.5", "--zoom", "1")
    for name in ("a.png", "b.png"):
        status, out, _ = run(*arguments, "-o", folder / name)
        assert status == 0
        assert f"Wrote {folder / name}" in out
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes()
    run(*arguments, "-o", folder / "b.png", "--label", "cat")
    assert (folder / "a.png").read_bytes() != (folder / "b.png").read_bytes()
    with Image.open(folder / "a.png") as picture:
        assert picture.size == (3 * 9 + 1, 2 * 9 + 1)


@pytest.mark.parametrize(
    "options", [(), ("--block", "--output", "sample"), ("--output", "sample", "--method", "repaint")]
)
def test_filling_in_keeps_what_is_known(run, folder, options):
    arguments = ("image", "inpaint", folder / "run", "--data", folder / "data.npz", "-n", 4, "--zoom", 1, *options)
    status, out, _ = run(*arguments, "-o", folder / "filled.png")
    assert status == 0
    assert "root mean squared error" in out
    with Image.open(folder / "filled.png") as picture:
        truth, left, answer = np.asarray(picture)[1:].reshape(3, 9, -1, 3)
    hidden = (left == 0).all(2)
    np.testing.assert_array_equal(answer[~hidden], truth[~hidden])
    assert not np.array_equal(answer, truth)


def test_evaluation_states_both_references(run, folder, monkeypatch):
    import torch

    from countsdiff.image.resnet import CifarResNet

    saved = {f"module.{name}": value for name, value in CifarResNet(1).state_dict().items()}
    torch.save({"state_dict": saved}, folder / "resnet.th")
    options = ("--resnet", folder / "resnet.th", "-n", 12, "--batch-size", 4, "--json", folder / "scores.json")
    status, out, _ = run("image", "evaluate", folder / "run", "--data", folder / "data.npz", *options)
    assert status == 0
    scores = json.loads((folder / "scores.json").read_text())
    assert (scores["n_generated"], scores["n_train"], scores["n_test"]) == (12, 20, 10)
    assert scores["resnet_frechet_train"] > 0.0
    assert "resnet_frechet_test" in out
    assert "fid" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "smal", "--data", "DATA", "-o", "x"), "There is no configuration 'smal'; choose one of"),
        (("train", "TINY", "--data", "nowhere", "-o", "x"), "nowhere: there is no such file or folder"),
        (("train", "TINY", "--data", "DATA", "-o", "RUN", "--seed", "1", "-q"), "has seed 0, not 1"),
        (("sample", "nowhere", "-o", "x.png"), "there is no trained model"),
        (("sample", "RUN", "-o", "x.png", "--label", "cow"), "--label cow: the model knows cat, dog"),
        (("sample", "RUN", "-o", "x.png", "--attrition", "2"), "Invalid value for '--attrition'"),
        (("sample", "RUN", "-o", "x.png", "--device", "cuda"), "cannot be loaded on cuda"),
        (("inpaint", "RUN", "--data", "DATA", "-o", "x.png", "--method", "repaint"), "RePaint draws samples only"),
        (("inpaint", "RUN", "--data", "DATA", "-o", "x.png", "--hide", "0"), "--hide 0 hides no pixel"),
        (("inpaint", "RUN", "--data", "COWS", "-o", "x.png"), "does not know 'cow'; it knows cat, dog"),
        (("train", "TINY", "--data", "COWS", "-o", "RUN", "-q"), "has categories [['cat', 'dog']], not [['cow'"),
        (("train", "TINY", "--data", "DATA", "-o", "x", "--precision", "32"), "precision is '32', none of '32-true'"),
        (("train", "TINY", "--data", "DATA", "-o", "x", "--accelerator", "mps", "-q"), "MPSAccelerator"),
        (("evaluate", "RUN", "--data", "TESTS", "--inception", "none.pth", "-n", "4"), "there are no training images"),
        (("evaluate", "RUN", "--data", "DATA"), "--inception download, or --resnet"),
        (
            ("evaluate", "RUN", "--data", "DATA", "--inception", "none.pth", "-n", "4"),
            "none.pth: there is no such file",
        ),
    ],
)
def test_bad_input_ends_with_one_sentence(run, folder, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = dict(np.load(folder / "data.npz"))
    np.savez(tmp_path / "cows.npz", **arrays | {"labels": ["cow", "dog"] * 15})
    names = {"DATA": folder / "data.npz", "TINY": folder / "tiny.yaml", "RUN": folder / "run"}
    names["COWS"] = tmp_path / "cows.npz"
    np.savez(tmp_path / "tests.npz", **arrays | {"partition": [2] * 30})
    names["TESTS"] = tmp_path / "tests.npz"
    status, out, err = run("image", *(names.get(a, a) for a in arguments))
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_help_is_there(run):
    status, out, _ = run("image", "--help")
    assert status == 0
    assert all(name in out for name in ("train", "sample", "inpaint", "evaluate"))


def test_drawn_classes_are_in_the_proportions_of_the_training_images():
    classes = np.repeat([0, 1, 2], 40)  # one after the other, as folders have them
    for n in (60, 120, 300):
        share = np.bincount(classes[_in_proportion(n, 120, seed=0)], minlength=3) / n
        assert abs(share - 1 / 3).max() < 0.13
    assert np.bincount(_in_proportion(300, 120, seed=0)).tolist().count(3) == 60  # the others twice
    order = classes[_in_proportion(120, 120, seed=0)]
    assert sorted(order) == classes.tolist() != order.tolist()


def test_the_data_are_not_written_to(run, folder, tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), 80 * i, np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    data = (tmp_path / "data.npz").write_bytes((folder / "data.npz").read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert data == len(before[tmp_path / "data.npz"])
    for source, out in (("data.npz", "data.npz"), ("pictures", "pictures/0.png"), ("pictures", "pictures/new.png")):
        status, _, err = run("image", "inpaint", folder / "run", "--data", tmp_path / source, "-o", tmp_path / out)
        assert (status, "input" in err) == (2, True)
    status, _, err = run(
        "image", "train", folder / "tiny.yaml", "--data", tmp_path / "pictures", "-o", tmp_path / "pictures" / "run"
    )
    assert (status, "lies in the input" in err) == (2, True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert run("image", "sample", folder / "run", "-o", tmp_path / "x.png", "--seed", 2**70)[0] == 2


@pytest.mark.parametrize("command", ["sample", "inpaint", "evaluate"])
def test_a_model_is_not_written_over(run, folder, command):
    target = folder / "run" / "model.safetensors"
    before = target.read_bytes()
    options = {
        "sample": ("-o", target),
        "inpaint": ("--data", folder / "data.npz", "-o", target),
        "evaluate": ("--data", folder / "data.npz", "--inception", "download", "--json", target),
    }[command]
    status, _, err = run("image", command, folder / "run", *options)
    assert (status, err.count("\n"), target.read_bytes()) == (2, 1, before)
