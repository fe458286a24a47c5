import typer

from countsdiff.cli._image._evaluate import evaluate
from countsdiff.cli._image._inpaint import inpaint
from countsdiff.cli._image._sample import sample
from countsdiff.cli._image._train import train

__all__ = ["image"]

image = typer.Typer(name="image", help="Generate, fill in and denoise images: pixel intensities are counts.")
for command in (train, sample, inpaint, evaluate):
    image.command()(command)
