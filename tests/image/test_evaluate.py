import builtins
import sys

import numpy as np
import pytest
import torch

from countsdiff.image.evaluate import (
    InceptionScores,
    extract_features,
    feature_distance,
    inception_scores,
    resnet_frechet_distance,
)
from countsdiff.image.grid import image_grid, save_grid
from countsdiff.image.resnet import CifarResNet


def means(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float().mean((2, 3))


def test_feature_distance_is_that_of_the_gaussians_of_the_features(images):
    bright, dark = images.pixels[images.codes[:, 0] == 1], images.pixels[images.codes[:, 0] == 0]
    assert feature_distance(bright, bright, means) == pytest.approx(0.0, abs=1e-9)
    shifted = (bright - 10).astype(np.uint8)
    # equal covariances: the squared distance of the means, ten in each of three channels
    assert feature_distance(bright, shifted, means) == pytest.approx(300.0, rel=1e-6)
    assert feature_distance(bright, dark, means) > 3 * 140**2


def test_features_do_not_depend_on_the_batch(images):
    np.testing.assert_array_equal(extract_features(images.pixels, means, 7), extract_features(images.pixels, means))


def test_the_classifier_classifies_cifar10(data_dir):
    from countsdiff.image.reading import read_cifar10

    test = read_cifar10(data_dir / "cifar-10-batches-py", "test").take(slice(0, 300))
    network = CifarResNet.load(data_dir / "weights" / "resnet20-12fca82f.th")
    with torch.no_grad():
        right = network(torch.from_numpy(test.pixels)).argmax(1).numpy() == test.codes[:, 0]
    assert right.mean() > 0.87  # 91.7 % of all 10,000
    first, second = test.pixels[:150], test.pixels[150:]
    noise = np.random.default_rng(0).integers(0, 256, first.shape).astype(np.uint8)
    assert resnet_frechet_distance(first, noise, network) > 3 * resnet_frechet_distance(first, second, network)


def test_published_depths(tmp_path):
    for n_blocks, n_layers in ((3, 20), (9, 56)):
        network = CifarResNet(n_blocks)
        assert sum(p.ndim in (2, 4) for p in network.parameters()) == n_layers
        saved = {f"module.{name}": value for name, value in network.state_dict().items()}
        torch.save({"state_dict": saved}, tmp_path / "weights.th")
        assert len(CifarResNet.load(tmp_path / "weights.th").layer1) == n_blocks


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights\.th: there is no such file"):
        CifarResNet.load(tmp_path / "weights.th")
    torch.save({"state_dict": {"module.layer1.0.conv1.weight": torch.zeros(2)}}, tmp_path / "weights.th")
    with pytest.raises(ValueError, match="no weights of a CIFAR-10 ResNet"):
        CifarResNet.load(tmp_path / "weights.th")


def test_fid_says_what_it_lacks(images, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"inception\.pth: there is no such file; the Inception weights are at"):
        inception_scores(images.pixels, images.pixels, tmp_path / "inception.pth")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch_fidelity"):
            raise ImportError("No module named 'torch_fidelity'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'countsdiff\[fid\]'"):
        inception_scores(images.pixels, images.pixels)


def test_fid_is_asked_for_in_the_right_way(images, tmp_path, monkeypatch):
    # the library itself needs a torchvision that fits, and 95 MB of weights: here its question and its answer
    asked = {}

    class Library:
        @staticmethod
        def calculate_metrics(**arguments):
            asked.update(arguments)
            return {
                "frechet_inception_distance": 3.0,
                "inception_score_mean": 9.0,
                "inception_score_std": 0.5,
            }

    monkeypatch.setitem(sys.modules, "torch_fidelity", Library)
    weights = tmp_path / "inception.pth"
    weights.touch()
    scores = inception_scores(images.pixels[:9], images.pixels[9:], weights)
    assert scores == InceptionScores(fid=3.0, inception_score=9.0, inception_score_std=0.5, n_real=9, n_generated=31)
    # the score is that of the first input, which has to be the generated one
    assert (len(asked["input1"]), len(asked["input2"])) == (31, 9)
    assert asked["input1"][0].dtype == torch.uint8
    assert asked["feature_extractor_weights_path"] == str(weights)

    def offline(**arguments):
        raise OSError("no route to host")

    monkeypatch.setattr(Library, "calculate_metrics", staticmethod(offline))
    with pytest.raises(ConnectionError, match="cannot be downloaded .*get https://.* elsewhere and give its path"):
        inception_scores(images.pixels, images.pixels)


def test_grids_show_every_image_in_its_place(images, tmp_path):
    from PIL import Image

    picture = image_grid(images.pixels[:5], 3)
    assert picture.shape == (2 * 9 + 1, 3 * 9 + 1, 3)
    np.testing.assert_array_equal(picture[10:18, 10:18], images.pixels[4].transpose(1, 2, 0))
    assert (picture[10:18, 19:27] == 255).all()
    save_grid(images.pixels[:5], tmp_path / "a.png", 3, zoom=2)
    with Image.open(tmp_path / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved)[::2, ::2], picture)
