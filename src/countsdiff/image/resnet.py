"""Features of CIFAR-10 classifiers: residual networks as He et al. (2016) have them for that set."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (16, 32, 64)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE = 32


class CifarResNet(nn.Module):
    """Residual network of 6 n + 2 layers, whose shortcuts between levels drop every second pixel and add no weights.

    Weights fit those of akamaster/pytorch_resnet_cifar10, for inputs standardised per channel.

    Parameters
    ----------
    n_blocks
        n, blocks in each of three levels: 3 for ResNet-20, 9 for ResNet-56.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_blocks: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        before = (_WIDTHS[0], *_WIDTHS)
        for level, width in enumerate(_WIDTHS):
            blocks = [_Block(before[level], width), *(_Block(width, width) for _ in range(n_blocks - 1))]
            setattr(self, f"layer{level + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(_WIDTHS[-1], 10)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, path: str | Path) -> "CifarResNet":
        """Read published weights; the depth follows from them.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it does not hold weights of such a network.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"{path}: there is no such file; github.com/akamaster/pytorch_resnet_cifar10 has weights."
            )
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
            weights = {name.removeprefix("module."): value for name, value in saved.items()}
            network = cls(len({name.split(".")[1] for name in weights if name.startswith("layer1.")}))
            network.load_state_dict(weights)
        except (RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path}: these are no weights of a CIFAR-10 ResNet ({error}).") from error
        return network.eval()

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features of uint8 images of any size, which are brought to 32 × 32; shape ``(n_obs, 64)``."""
        x = pixels.to(self.mean)
        if x.shape[2:] != (_SIDE, _SIDE):
            x = F.interpolate(x, size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
        h = F.relu(self.bn1(self.conv1((x / 255.0 - self.mean) / self.std)))
        for level in range(len(_WIDTHS)):
            h = getattr(self, f"layer{level + 1}")(h)
        return h.mean(dim=(2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of the ten classes, shape ``(n_obs, 10)``."""
        logits: Tensor = self.linear(self.features(pixels))
        return logits


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.stride = 1 if n_in == n_out else 2
        self.more = n_out - n_in
        self.conv1 = nn.Conv2d(n_in, n_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(h + shortcut)
