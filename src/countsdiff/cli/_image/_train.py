from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from countsdiff.cli._image._shared import Data, Seed, read
from countsdiff.cli._impute import Accelerator
from countsdiff.cli._io import blame, check_folder, say


def train(
    config: Annotated[str, Argument(metavar="CONFIG", help="Name of a configuration, or a YAML file.")],
    data: Data,
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
    seed: Seed = 0,
    accelerator: Annotated[Accelerator, Option(help="What to compute on.")] = Accelerator.AUTO,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Train a model of images. A training that was stopped goes on when it is started again."""
    check_folder(out, Path(data))
    with blame():
        from countsdiff.image.config import get_config
        from countsdiff.image.training import train

        settings = get_config(config).with_options(n_steps=steps, precision=precision)
        images = read(data, "train", settings)

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
        say(
            f"Trained on {len(images):,} images of {' × '.join(map(str, images.shape))}.",
            f"Wrote the model to {out}." if model else f"Not at the end yet; run again to go on from {out}.",
        )
