from typing import TYPE_CHECKING, Annotated

from typer import Option

from countsdiff.cli._image._shared import Attrition, Batch, Device, Guidance, Model, Png, Seed, Steps, load, save
from countsdiff.cli._io import InputError, blame, check_output, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from countsdiff.image.pixel_model import PixelModel


def sample(
    model: Model,
    out: Png,
    n: Annotated[int, Option("-n", min=1, help="Number of images.")] = 64,
    label: Annotated[
        list[str] | None,
        Option(help="Class, or several in turn; attributes are all taken together, those not named being absent."),
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    attrition: Attrition = None,
    seed: Seed = 0,
    batch_size: Batch = 64,
    device: Device = "cpu",
    zoom: Annotated[int, Option(min=1, help="Size of a pixel on the picture.")] = 2,
) -> None:
    """Draw new images, and put them on one picture."""
    check_output(out, model)
    with blame():
        trained = load(model, device)
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
        save(pixels, out, None, zoom)
    say(f"Drew {n:,} images.", f"Wrote {out}.")


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
