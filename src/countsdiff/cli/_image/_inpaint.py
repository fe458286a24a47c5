from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Option

from countsdiff.cli._image._shared import Data, Device, Guidance, Model, Png, Seed, Steps, load, read, save
from countsdiff.cli._io import InputError, blame, check_output, say


class Output(StrEnum):
    """What to put in place of hidden pixels."""

    MEAN = "mean"
    SAMPLE = "sample"


class Method(StrEnum):
    """How to fill in hidden pixels."""

    CONDITIONAL = "conditional"
    REPAINT = "repaint"


def inpaint(
    model: Model,
    data: Data,
    out: Png,
    n: Annotated[int, Option("-n", min=1, help="Number of images.")] = 16,
    hide: Annotated[float, Option(min=0.0, max=1.0, help="Share of pixels to hide.")] = 0.5,
    block: Annotated[bool, Option("--block", help="Hide the square in the middle instead.")] = False,
    output: Annotated[Output, Option(help="Expected intensity, or a draw.")] = Output.MEAN,
    method: Annotated[Method, Option(help="repaint suits any model, and draws only.")] = Method.CONDITIONAL,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    device: Device = "cpu",
    zoom: Annotated[int, Option(min=1, help="Size of a pixel on the picture.")] = 2,
) -> None:
    """Hide pixels of images and fill them in; rows of the picture: originals, masked images, filled images.

    Of data that say which images are for testing, those are taken.
    """
    check_output(out, model, Path(data))
    with blame():
        import numpy as np

        from countsdiff.image.hide import central_block, scattered

        trained = load(model, device)
        images = read(data, "test", trained.config)
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
        save(rows, out, len(images), zoom)
    say(
        f"Filled in {error.size:,} values of {len(images):,} images, root mean squared error "
        f"{np.sqrt(np.square(error).mean()):.2f}.",
        f"Wrote {out}.",
    )
