import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from countsdiff.arguments import MAX_SEED
from countsdiff.cli._impute import Accelerator
from countsdiff.cli._io import InputError, blame, check_folder, check_output, report
from countsdiff.files import atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from countsdiff.image.data import Images
    from countsdiff.image.pixel_model import PixelModel

image = typer.Typer(name="image", help="Generate, fill in and denoise images: pixel intensities are counts.")


class Output(StrEnum):
    """What to put in place of hidden pixels."""

    MEAN = "mean"
    SAMPLE = "sample"


class Method(StrEnum):
    """How to fill in hidden pixels."""

    CONDITIONAL = "conditional"
    REPAINT = "repaint"


_Model = Annotated[Path, Argument(metavar="MODEL", help="Folder of a trained model.")]
_Data = Annotated[
    str,
    Option(
        metavar="PATH|cifar10",
        help="Images: a folder of CIFAR-10's files or in CelebA's layout, an .npz file, a folder of pictures; "
        "perhaps with folders train and test; cifar10 downloads it.",
    ),
]
_Png = Annotated[Path, Option("--out", "-o", metavar="OUT.png", help="Picture to write.")]
_Seed = Annotated[int, Option(min=0, max=MAX_SEED, help="Seed of everything drawn.")]
_Steps = Annotated[int | None, Option(min=1, help="Reverse steps.", show_default="those of the model")]
_Guidance = Annotated[float | None, Option(help="Strength of the classes.", show_default="that of the model")]
_Attrition = Annotated[
    float | None, Option(min=0.0, max=1.0, help="Share η of the attrition.", show_default="that of the model")
]
_Batch = Annotated[int, Option(min=1, help="Images at a time.")]
_Device = Annotated[str, Option(help="cpu, cuda or mps.")]


@image.command()
def train(
    config: Annotated[str, Argument(metavar="CONFIG", help="Name of a configuration, or a YAML file.")],
    data: _Data,
    out: Annotated[Path, Option("--out", "-o", metavar="DIR", help="Folder for checkpoint and model.")],
    steps: Annotated[
        int | None, Option(min=1, help="Length of training.", show_default="that of the configuration")
    ] = None,
    precision: Annotated[
        str | None, Option(help="32-true or bf16-mixed.", show_default="that of the configuration")
    ] = None,
    max_minutes: Annotated[
        float | None, Option(min=0.0, help="Stop at a checkpoint after this time.", show_default="at the end")
    ] = None,
    seed: _Seed = 0,
    accelerator: Annotated[Accelerator, Option(help="What to compute on.")] = Accelerator.AUTO,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Train a model of images. A training that was stopped goes on when it is started again."""
    check_folder(out, Path(data))
    with blame():
        from countsdiff.image.config import get_config
        from countsdiff.image.training import train

        settings = get_config(config).with_options(n_steps=steps, precision=precision)
        images = _read(data, "train", settings)

        from countsdiff.cli._training import progress_bar, set_up

        set_up()
        with progress_bar(quiet=quiet) as arguments:
            model = train(
                images,
                settings,
                out,
                seed=seed,
                max_minutes=max_minutes,
                accelerator=accelerator.value,
                callbacks=arguments.get("callbacks", ()),
            )
    if not quiet:
        report(
            f"Trained on {len(images):,} images of {' × '.join(map(str, images.shape))}.",
            f"Wrote the model to {out}." if model else f"Not at the end yet; run again to go on from {out}.",
        )


@image.command()
def sample(
    model: _Model,
    out: _Png,
    n: Annotated[int, Option("-n", min=1, help="Number of images.")] = 64,
    label: Annotated[
        list[str] | None,
        Option(help="Class, or several in turn; attributes are all taken together, those not named being absent."),
    ] = None,
    steps: _Steps = None,
    guidance: _Guidance = None,
    attrition: _Attrition = None,
    seed: _Seed = 0,
    batch_size: _Batch = 64,
    device: _Device = "cpu",
    zoom: Annotated[int, Option(min=1, help="Size of a pixel on the picture.")] = 2,
) -> None:
    """Draw new images, and put them on one picture."""
    check_output(out, model)
    with blame():
        trained = _load(model, device)
        codes = _codes(trained, n, label or [])
        pixels = trained.sample(
            n,
            codes=codes,
            seed=seed,
            batch_size=batch_size,
            sample_steps=steps,
            guidance=guidance,
            attrition=attrition,
        )
        _save(pixels, out, None, zoom)
    report(f"Drew {n:,} images.", f"Wrote {out}.")


@image.command()
def inpaint(
    model: _Model,
    data: _Data,
    out: _Png,
    n: Annotated[int, Option("-n", min=1, help="Number of images.")] = 16,
    hide: Annotated[float, Option(min=0.0, max=1.0, help="Share of pixels to hide.")] = 0.5,
    block: Annotated[bool, Option("--block", help="Hide the square in the middle instead.")] = False,
    output: Annotated[Output, Option(help="Expected intensity, or a draw.")] = Output.MEAN,
    method: Annotated[Method, Option(help="repaint suits any model, and draws only.")] = Method.CONDITIONAL,
    steps: _Steps = None,
    guidance: _Guidance = None,
    seed: _Seed = 0,
    device: _Device = "cpu",
    zoom: Annotated[int, Option(min=1, help="Size of a pixel on the picture.")] = 2,
) -> None:
    """Hide pixels of images and fill them in; rows of the picture: originals, masked images, filled images.

    Of data that say which images are for testing, those are taken.
    """
    check_output(out, model, Path(data))
    with blame():
        import numpy as np

        from countsdiff.image.hide import central_block, scattered

        trained = _load(model, device)
        images = _read(data, "test", trained.config)
        images = images.take(slice(0, n))
        if len(images) == 0:
            raise InputError(f"{data}: there are no test images.")
        side = trained.shape[1:]
        hidden = central_block(len(images), side) if block else scattered(len(images), side, hide, seed)
        if not hidden.any():
            raise InputError(f"--hide {hide:g} hides no pixel; hide more of them.")
        answer = trained.inpaint(
            images.pixels,
            hidden,
            output=output.value,
            method=method.value,
            codes=images.codes_as(trained.categories),
            seed=seed,
            sample_steps=steps,
            guidance=guidance,
        )
        everywhere = np.broadcast_to(hidden[:, None], answer.shape)
        error = (answer.astype(np.float64) - images.pixels)[everywhere]
        left = np.where(everywhere, np.uint8(0), images.pixels)
        rows = np.concatenate([images.pixels, left, np.rint(answer).astype(np.uint8)])
        _save(rows, out, len(images), zoom)
    report(
        f"Filled in {error.size:,} values of {len(images):,} images, root mean squared error "
        f"{np.sqrt(np.square(error).mean()):.2f}.",
        f"Wrote {out}.",
    )


@image.command()
def evaluate(
    model: _Model,
    data: _Data,
    inception: Annotated[
        str | None, Option(metavar="PATH|download", help="Weights of the Inception network, for FID.")
    ] = None,
    resnet: Annotated[
        Path | None, Option(metavar="PATH", help="Weights of a CIFAR-10 ResNet, for its Fréchet distance.")
    ] = None,
    n: Annotated[int, Option("-n", min=2, help="Number of images to draw.")] = 50_000,
    steps: _Steps = None,
    guidance: _Guidance = None,
    attrition: _Attrition = None,
    seed: _Seed = 0,
    batch_size: _Batch = 256,
    device: _Device = "cpu",
    json_file: Annotated[Path | None, Option("--json", metavar="OUT.json", help="File for the scores.")] = None,
) -> None:
    """Compare generated images with training images, and with test images where the data say which those are.

    Classes are generated in the proportions of the training images.
    """
    if inception is None and resnet is None:
        raise InputError("Name what to compare by: --inception download, or --resnet with a file of weights.")
    if json_file is not None:
        check_output(json_file, model, Path(data), *(path for path in (resnet,) if path is not None))
    with blame():
        from countsdiff.image.evaluate import inception_scores, resnet_frechet_distance
        from countsdiff.image.reading import has_split
        from countsdiff.image.resnet import CifarResNet

        network = None if resnet is None else CifarResNet.load(resnet)
        trained = _load(model, device)
        splits = ("train", "test") if has_split(data) else ("train",)
        references = {split: _read(data, split, trained.config) for split in splits}
        if len(references["train"]) == 0:
            raise InputError(f"{data}: there are no training images.")
        known = references["train"].codes_as(trained.categories)
        drawn = trained.sample(
            n,
            codes=known[_in_proportion(n, len(known), seed)],
            seed=seed,
            batch_size=batch_size,
            sample_steps=steps,
            guidance=guidance,
            attrition=attrition,
        )
        scores: dict[str, Any] = {"n_generated": n}
        for split, images in references.items():
            scores[f"n_{split}"] = len(images)
            if network is not None:
                scores[f"resnet_frechet_{split}"] = resnet_frechet_distance(images.pixels, drawn, network)
            if inception is not None:
                found = inception_scores(images.pixels, drawn, None if inception == "download" else inception)
                scores[f"fid_{split}"] = found.fid
                scores["inception_score"], scores["inception_score_std"] = (
                    found.inception_score,
                    found.inception_score_std,
                )
    if json_file is not None:
        with atomic(json_file) as temporary:
            temporary.write_text(json.dumps(scores, indent=2) + "\n")
    for name, value in scores.items():
        report(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value:,}")


def _in_proportion(n: int, n_known: int, seed: int) -> "NDArray[np.intp]":
    """Rows of the training images to take the classes of `n` from: all equally often but for a rest, shuffled.

    In the order of the files, where a folder has one class after the other, the last classes would be missing.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    whole, rest = divmod(n, n_known)
    return rng.permutation(np.concatenate([np.tile(np.arange(n_known), whole), rng.permutation(n_known)[:rest]]))


def _read(data: str, split: Any, config: Any) -> "Images":
    from countsdiff.image.reading import read_images

    images = read_images(data, split, config.size)
    return images.of_classes(config.classes) if config.classes else images


def _load(folder: Path, device: str) -> "PixelModel":
    from countsdiff.image.pixel_model import PixelModel

    try:
        return PixelModel.load(folder, device)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).splitlines()[0]
        raise InputError(f"{folder}: this model cannot be loaded on {device} ({cause}).") from error


def _codes(model: "PixelModel", n: int, labels: list[str]) -> "NDArray[np.int64] | None":
    """Codes of classes in turn; of named attributes, the others being absent; by default all classes, or nothing."""
    import numpy as np

    known = [name for names in model.categories for name in names]
    for name in labels:
        if name not in known:
            raise InputError(f"--label {name}: the model knows {', '.join(known) or 'no labels'}.")
    if len(model.categories) == 1:
        (names,) = model.categories
        return np.resize([names.index(name) for name in labels or names], n)[:, None]
    if not labels:
        return None
    codes = [max((names.index(name) for name in labels if name in names), default=0) for names in model.categories]
    return np.tile(np.array(codes, dtype=np.int64), (n, 1))


def _save(pixels: "NDArray[np.uint8]", out: Path, n_columns: int | None, zoom: int) -> None:
    from countsdiff.image.grid import save_grid

    with atomic(out) as temporary:
        save_grid(pixels, temporary, n_columns, zoom)
