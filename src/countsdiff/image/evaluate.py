"""How far generated images are from real ones.

FID and Inception Score mean one network with one set of weights, those of the Inception of 2015, and are computed by
torch-fidelity. The Fréchet distance of the features of any other network is a number of its own, and not called FID.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from countsdiff.image.resnet import CifarResNet
from countsdiff.metrics import frechet_distance

Pixels = NDArray[np.uint8]
FeatureNetwork = Callable[[Tensor], Tensor]
"""uint8 images ``(n_obs, n_channels, height, width)`` → features ``(n_obs, n_features)``."""

_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
_SPLITS = 10  # parts of the sample over which the Inception Score is averaged (Salimans et al. 2016)


@dataclass(frozen=True)
class InceptionScores:
    """What the Inception network of 2015 says; numbers of images stand beside, since both scores depend on them.

    Attributes
    ----------
    fid
        Fréchet distance of its 2,048 pooled features (Heusel et al. 2017).
    inception_score, inception_score_std
        Mean and standard deviation over ten parts of the sample (Salimans et al. 2016).
    n_real, n_generated
        Numbers of images; the protocol of the literature is 50,000 generated ones.
    """

    fid: float
    inception_score: float
    inception_score_std: float
    n_real: int
    n_generated: int


def inception_scores(real: Pixels, generated: Pixels, weights: str | Path | None = None) -> InceptionScores:
    """FID and Inception Score by torch-fidelity.

    Parameters
    ----------
    real, generated
        Images, uint8, shape ``(n, 3, height, width)``.
    weights
        The published weights as a file; None downloads them (95 MB) to torch's cache.

    Raises
    ------
    ImportError
        If torch-fidelity, or torchvision, which it needs, is not installed.
    ConnectionError
        If the weights cannot be downloaded.
    FileNotFoundError
        If there is no such file of weights.
    """
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(f"{weights}: there is no such file; the Inception weights are at {_URL}.")
    try:
        import torch_fidelity
    except (ImportError, RuntimeError) as error:  # torchvision of another build than torch fails at run time
        raise ImportError(
            f"FID needs torch-fidelity, and a torchvision that belongs to your torch ({error}): "
            "pip install 'countsdiff[fid]'."
        ) from error
    try:
        found: dict[str, Any] = torch_fidelity.calculate_metrics(
            input1=_Pictures(generated),
            input2=_Pictures(real),
            fid=True,
            isc=True,
            isc_splits=_SPLITS,
            samples_shuffle=True,  # or each of the parts that the Inception Score is taken of might be one class
            cuda=torch.cuda.is_available(),
            verbose=False,
            feature_extractor_weights_path=None if weights is None else str(weights),
        )
    except OSError as error:
        raise ConnectionError(
            f"The Inception weights cannot be downloaded ({error}); get {_URL} elsewhere and give its path."
        ) from error
    return InceptionScores(
        fid=float(found["frechet_inception_distance"]),
        inception_score=float(found["inception_score_mean"]),
        inception_score_std=float(found["inception_score_std"]),
        n_real=len(real),
        n_generated=len(generated),
    )


def resnet_frechet_distance(real: Pixels, generated: Pixels, network: CifarResNet) -> float:
    """Fréchet distance of the 64 pooled features of a CIFAR-10 classifier. This is not FID.

    Parameters
    ----------
    real, generated
        Images, uint8, shape ``(n, n_channels, height, width)``.
    network
        The classifier.
    """
    return feature_distance(real, generated, network.features)


def feature_distance(real: Pixels, generated: Pixels, network: FeatureNetwork, batch_size: int = 256) -> float:
    """Fréchet distance between the features of real and generated images.

    Parameters
    ----------
    real, generated
        Images, uint8, shape ``(n, n_channels, height, width)``.
    network
        What turns them into features.
    batch_size
        Images at a time.

    Returns
    -------
    float
        See :func:`countsdiff.metrics.frechet_distance`; comparable at equal numbers of images only.
    """
    return frechet_distance(*(extract_features(v, network, batch_size) for v in (real, generated)))


@torch.no_grad()
def extract_features(pixels: Pixels, network: FeatureNetwork, batch_size: int = 256) -> NDArray[np.float64]:
    """Features of all images, shape ``(n, n_features)``."""
    batches = torch.from_numpy(np.ascontiguousarray(pixels)).split(batch_size)
    return torch.cat([network(batch).double().cpu() for batch in batches]).numpy()


class _Pictures(Dataset[Tensor]):
    """Images one by one, as torch-fidelity reads them."""

    def __init__(self, pixels: Pixels):
        self._pixels = torch.from_numpy(pixels)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self._pixels[index]
