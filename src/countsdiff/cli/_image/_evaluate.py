import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from countsdiff.cli._image._shared import Attrition, Batch, Data, Device, Guidance, Model, Seed, Steps, load, read
from countsdiff.cli._io import InputError, blame, check_output, say
from countsdiff.files import atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def evaluate(
    model: Model,
    data: Data,
    inception: Annotated[
        str | None, Option(metavar="PATH|download", help="Weights of the Inception network, for FID.")
    ] = None,
    resnet: Annotated[
        Path | None, Option(metavar="PATH", help="Weights of a CIFAR-10 ResNet, for its Fréchet distance.")
    ] = None,
    n: Annotated[int, Option("-n", min=2, help="Number of images to draw.")] = 50_000,
    steps: Steps = None,
    guidance: Guidance = None,
    attrition: Attrition = None,
    seed: Seed = 0,
    batch_size: Batch = 256,
    device: Device = "cpu",
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
        trained = load(model, device)
        splits = ("train", "test") if has_split(data) else ("train",)
        references = {split: read(data, split, trained.config) for split in splits}
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
        say(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value:,}")


def _in_proportion(n: int, n_known: int, seed: int) -> "NDArray[np.intp]":
    """Rows of the training images to take the classes of `n` from: all equally often but for a rest, shuffled.

    In the order of the files, where a folder has one class after the other, the last classes would be missing.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    whole, rest = divmod(n, n_known)
    return rng.permutation(np.concatenate([np.tile(np.arange(n_known), whole), rng.permutation(n_known)[:rest]]))
