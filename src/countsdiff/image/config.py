"""What to train and how, as one value that is written beside the weights; named ones lie in ``configs``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from countsdiff.arguments import plain
from countsdiff.core.guidance import ClassifierFreeGuidance
from countsdiff.core.heads import HeadName
from countsdiff.core.loss import TimeSampler
from countsdiff.core.sampler import AttritionKind, BirthRule, SamplerConfig
from countsdiff.core.schedule import Spacing, get_schedule
from countsdiff.image.data import LARGEST
from countsdiff.model_files import check_type

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class ImageConfig:
    """Settings of a diffusion model of images. Defaults are those of CountsDiff on CIFAR-10 (arXiv 2604.03779).

    Attributes
    ----------
    size
        Side that images are shrunk to, in pixels; None leaves them as they are.
    classes
        Names of the classes to train on; empty for all.
    conditional
        Whether classes or attributes are covariates.
    flip
        Whether to turn half of the training images left to right.
    head, schedule, weight, spacing
        See :class:`~countsdiff.core.Denoiser`, :func:`~countsdiff.core.get_schedule` and
        :class:`~countsdiff.core.TimeSampler`.
    jump_scale
        ζ of JUMP: pixels are replaced by counts drawn from Poisson(ζ pixel). None: pixels are the counts.
    linear
        Whether the network starts from the best linear estimate of all pixels, see
        :class:`~countsdiff.nn.LinearEstimate`: for few steps of training, and few pixels.
    share_generated
        Share of training images of which nothing is known. Of the others a share of the pixels, or a block, is hidden.
    share_empty, share_one_pass
        Shares of training images at p = 0, among those of which nothing is known and among the others: where every path
        begins, and where expected intensities are filled in with one pass.
    balanced
        Whether images count in inverse proportion to the loss that is to be expected at their noise level and share of
        known pixels: where next to nothing is seen it is forty times as large, and its noise drowns the rest. A small
        network learns what is to be expected on the side (Kendall et al. 2018, arXiv 1705.07115; Karras et al. 2024,
        arXiv 2312.02696).
    widths, depth, attention, dropout, n_groups
        See :class:`~countsdiff.nn.UNet`.
    n_steps, batch_size, lr, warmup
        Length of training in minibatches, images in each, learning rate of Adam, minibatches until it is reached.
    decay
        Whether the learning rate then falls to zero on half a cosine, for training that has an end.
    ema_decay, clip
        Decay of the averaged weights; norm to which gradients are clipped.
    share_unconditional
        Share of images trained with covariates unknown.
    precision
        ``"32-true"`` or ``"bf16-mixed"``; counts stay in float32 either way.
    compile
        Whether to compile the U-Net, which pays on a GPU.
    save_every
        Minibatches between checkpoints.
    sample_steps, births, attrition, attrition_kind, guidance
        How to sample unless told otherwise, see :class:`~countsdiff.core.SamplerConfig` and
        :class:`~countsdiff.core.ClassifierFreeGuidance`.
    """

    size: int | None = None
    classes: tuple[str, ...] = ()
    conditional: bool = True
    flip: bool = True
    head: HeadName | Literal["bounded"] = "rate"
    schedule: str = "cosine"
    weight: str = "paper"
    spacing: Spacing = "t"
    jump_scale: float | None = None
    linear: bool = False
    share_generated: float = 1.0
    share_empty: float = 0.0
    share_one_pass: float = 0.0
    balanced: bool = False
    widths: tuple[int, ...] = (128, 256, 256, 256)
    depth: int = 2
    attention: tuple[int, ...] = (2,)
    dropout: float = 0.1
    n_groups: int = 32
    n_steps: int = 300_000
    batch_size: int = 256
    lr: float = 2e-4
    warmup: int = 5_000
    decay: bool = False
    ema_decay: float = 0.9999
    clip: float = 1.0
    share_unconditional: float = 0.2
    precision: Precision = "32-true"
    compile: bool = False
    save_every: int = 1_000
    sample_steps: int = 1_000
    births: BirthRule = "stochastic"
    attrition: float = 0.005
    attrition_kind: AttritionKind = "rescaled"
    guidance: float = 2.0

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(hint) is tuple:
                value, hint = list(value) if isinstance(value, tuple) else value, list[get_args(hint)[0]]  # type: ignore[misc]
            try:
                check_type(value, hint, name)
            except TypeError as error:
                raise ValueError(f"{error}.") from error
        if self.head == "gamma":
            raise ValueError("Births of the head 'gamma' are more spread than pixels are; choose bounded, rate or x0.")
        if self.head == "bounded" and self.jump_scale is not None:
            raise ValueError(
                "Numbers drawn for intensities (jump_scale) have no ceiling, which the head bounded needs."
            )
        if self.linear and (self.head == "rate" or self.jump_scale is not None):
            raise ValueError("A linear estimate is of pixels, and for the heads bounded and x0: leave out jump_scale.")
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1; got {self.size}.")
        for name in ("n_steps", "batch_size", "sample_steps", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("share_generated", "share_empty", "share_one_pass", "share_unconditional", "dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share, in [0, 1]; got {getattr(self, name)}.")
        for name in ("lr", "clip", "jump_scale"):
            if (value := getattr(self, name)) is not None and not value > 0.0:
                raise ValueError(f"{name} is a positive number; got {value}.")
        # what is used after hours of training is built here, once, so that it complains now
        self.sampler()
        self.times()
        ClassifierFreeGuidance(self.guidance)

    def sampler(self) -> SamplerConfig:
        """How to sample."""
        return SamplerConfig(
            n_steps=self.sample_steps,
            spacing=self.spacing,
            attrition=self.attrition,
            attrition_kind=self.attrition_kind,
            births=self.births,
            schedule=get_schedule(self.schedule),
        )

    def times(self) -> TimeSampler:
        """Noise levels of training, where nothing of an image is known."""
        return TimeSampler(get_schedule(self.schedule), self.weight, self.spacing, self.share_empty)

    @property
    def ceiling(self) -> float:
        """Largest count there can be: none where intensities are counted at random (`jump_scale`)."""
        return LARGEST if self.jump_scale is None else math.inf

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "ImageConfig":
        """Build a configuration from plain values.

        Raises
        ------
        ValueError
            If a setting is unknown, of another kind or out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"Unknown setting {unknown[0]!r}; the settings are {', '.join(sorted(known))}.")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_dict` takes back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def with_options(self, **options: Any) -> "ImageConfig":
        """Return a copy with those options that are not None."""
        return replace(self, **{name: plain(value) for name, value in options.items() if value is not None})


def config_names() -> list[str]:
    """Names of the configurations inside the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def get_config(name: str | Path) -> ImageConfig:
    """Return a configuration by its name, or read one from a YAML file.

    Parameters
    ----------
    name
        One of :func:`config_names`, or a path.

    Raises
    ------
    ValueError
        If there is neither such a name nor such a file, or it holds anything but settings.
    """
    import yaml

    file = _folder() / f"{name}.yaml" if str(name) in config_names() else Path(name)
    if not file.is_file():
        names = ", ".join(config_names())
        raise ValueError(f"There is no configuration {str(name)!r}; choose one of {names}, or a file.")
    try:
        settings = yaml.safe_load(file.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: this is no YAML, {' '.join(str(error).split())}.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{name}: a configuration is a list of settings, name: value.")
    return ImageConfig.from_dict(settings)


def _folder() -> Any:
    return files("countsdiff.image") / "configs"
