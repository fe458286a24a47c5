"""What two CPU cores learn in ten minutes: three classes of CIFAR-10 at 16 × 16 pixels.

    python benchmarks/images/small.py --data DIR --runs DIR [--minutes 60]

trains the configuration `small` (or goes on with it), draws --n images and writes a picture of some, their Fréchet
distance from all test images of these classes in features of ResNet-56 (not FID) beside those of as many images of a
per-pixel marginal model and of the training set, and errors of filling in hidden pixels of 300 test images.
With --gaussian a Gaussian diffusion of the same network and training, trained for another ten minutes, fills in, too.
Needs scikit-image (extra dev) for the biharmonic equation. Images of the picture are generated ones only.
"""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from _common import RESULTS, Clock, OutOfTime, markdown, parse, parser, read, sampled, trained
from _gaussian import GaussianPixels
from skimage.restoration import inpaint_biharmonic

from countsdiff.core import thin
from countsdiff.image.config import get_config
from countsdiff.image.evaluate import resnet_frechet_distance
from countsdiff.image.grid import save_grid
from countsdiff.image.hide import central_block, scattered
from countsdiff.image.pixel_model import PixelModel
from countsdiff.image.resnet import CifarResNet

SEED, N_FILLED, SHOWN, COLUMNS = 0, 300, 72, 12


def marginal_images(pixels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Every value of every pixel on its own, drawn from those it takes in training."""
    rng = np.random.default_rng(seed)
    flat = pixels.reshape(len(pixels), -1)
    rows = rng.integers(0, len(flat), (n, flat.shape[1]))
    return np.take_along_axis(flat, rows, axis=0).reshape(n, *pixels.shape[1:])


def biharmonic(pixels: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Smoothest continuation of the known pixels, which solves the biharmonic equation."""
    filled = [
        inpaint_biharmonic(image.transpose(1, 2, 0).astype(float), mask, channel_axis=-1).transpose(2, 0, 1)
        for image, mask in zip(pixels, hidden, strict=True)
    ]
    return np.stack(filled).clip(0, 255)


def rmse(answer: np.ndarray, truth: np.ndarray, entries: np.ndarray) -> float:
    """Root mean squared error of some entries."""
    return float(np.sqrt(np.square(answer.astype(float) - truth)[entries].mean()))


def untrained(model: PixelModel) -> PixelModel:
    """The same model before it was trained, which answers with its linear estimate."""
    start = replace(model, denoiser=copy.deepcopy(model.denoiser))
    for parameter in start.denoiser.backbone.log_mean.parameters():
        torch.nn.init.zeros_(parameter)
    return start


def fill(model, gaussian, train, test) -> pd.DataFrame:
    """Errors of filling in, by what is hidden."""
    pixels, sides = test.pixels[:N_FILLED], test.shape[1:]
    masks = {f"{share:.0%} of pixels": scattered(len(pixels), sides, share, SEED) for share in (0.25, 0.5, 0.75, 0.9)}
    masks["central block"] = central_block(len(pixels), sides)
    rows = []
    for name, hidden in masks.items():
        entries = np.broadcast_to(hidden[:, None], pixels.shape)
        codes = test.codes[:N_FILLED]
        answers = {
            "pixel mean": np.broadcast_to(train.pixels.mean(0), pixels.shape),
            "biharmonic": biharmonic(pixels, hidden),
            "linear estimate alone": untrained(model).inpaint(pixels, hidden, guidance=1.0),
            "countsdiff": model.inpaint(pixels, hidden, guidance=1.0),
            "countsdiff, told the class": model.inpaint(pixels, hidden, codes=codes, guidance=1.0),
        }
        if gaussian is not None:
            answers["gaussian diffusion, told the class"] = gaussian.inpaint(pixels, hidden, codes)
        rows.append({"hidden": name} | {method: rmse(answer, pixels, entries) for method, answer in answers.items()})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def restore(model, test) -> pd.DataFrame:
    """Errors of restoring thinned images."""
    pixels, codes = test.pixels[:N_FILLED], test.codes[:N_FILLED]
    everything, rows = np.ones(pixels.shape, dtype=bool), []
    for p in (0.01, 0.03, 0.1, 0.3):
        generator = torch.Generator().manual_seed(SEED)
        thinned = thin(torch.from_numpy(pixels).float(), p, generator).numpy().astype(np.uint8)
        answer = model.denoise(thinned, p, codes=codes, guidance=1.0)
        row = {"photons kept": f"{p:.0%}", "scaled up": rmse((thinned / p).clip(0, 255), pixels, everything)}
        rows.append(row | {"countsdiff": rmse(answer, pixels, everything)})
    return pd.DataFrame(rows)


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(n=1_000, minutes=60.0, batch_size=100)
    options.add_argument("--gaussian", action="store_true", help="train the rival, too")
    arguments = parse(options)
    config, clock = get_config("small"), Clock(arguments.minutes)
    folder = arguments.runs / "small"
    train, test = (read(arguments.data, config, split) for split in ("train", "test"))
    network = CifarResNet.load(arguments.data / "img" / "weights" / "resnet56-4bfd9763.th")
    try:
        model = trained(config, train, folder, clock)
        gaussian = GaussianPixels(config, train, folder) if arguments.gaussian else None
        if gaussian is not None:
            gaussian.train(clock)
        drawn = {}
        for name, drawing, attrition in (
            ("linear estimate alone, attrition 0", untrained(model), 0.0),
            ("countsdiff, attrition 0", model, 0.0),
            ("countsdiff, attrition 0.05", model, 0.05),
        ):
            where = folder / f"samples of {name}"
            drawn[name] = sampled(
                drawing, where, arguments.n, test.codes, clock, arguments.batch_size, attrition=attrition
            )
    except OutOfTime:
        print("The slice is over; start again to go on.")
        return
    rows = np.random.default_rng(SEED).permutation(len(train))[: arguments.n]
    candidates = {
        "per-pixel marginals": marginal_images(train.pixels, arguments.n, SEED),
        **drawn,
        "real training images": train.pixels[rows],
    }
    distances = []
    for name, images in candidates.items():
        distance = resnet_frechet_distance(test.pixels, images, network)
        distances.append({"images": name, "n": len(images), "ResNet-56 Fréchet distance": distance})
        print(distances[-1], flush=True)
    order = np.argsort(test.codes[:SHOWN, 0], kind="stable")
    for name, images in drawn.items():
        file = f"small_{'linear' if name.startswith('linear') else name.split()[-1]}.png"
        save_grid(images[:SHOWN][order], RESULTS / file, COLUMNS, zoom=3)
    tables = {"small_distances": pd.DataFrame(distances), "small_filled": fill(model, gaussian, train, test)}
    tables["small_restored"] = restore(model, test)
    for name, table in tables.items():
        table.to_csv(RESULTS / f"{name}.csv", index=False)
        print(markdown(table), flush=True)


if __name__ == "__main__":
    main()
