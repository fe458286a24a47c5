"""The paper's comparison of schedules at equal training: cosine or logit-linear, attrition 0 or .005, guidance 1 or 2.

    python benchmarks/images/schedules.py --data DIR --runs DIR [--inception PATH] [--n 10000] [--config half-hour]

Each start is a slice of --minutes; start it again until it says that all is done. Speeds of training and sampling, and
the share of the GPU's peak if its bfloat16 TFLOP/s are given, stand in the table.
"""

import itertools
import time

import pandas as pd
import torch
from _common import RESULTS, Clock, OutOfTime, device, parse, parser, read, sampled, trained

from countsdiff.image.config import get_config
from countsdiff.image.evaluate import inception_scores, resnet_frechet_distance
from countsdiff.image.resnet import CifarResNet


def flops_per_image(model, batch_size: int = 8) -> float:
    """Floating point operations of one pass over one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model.sample(batch_size, sample_steps=1, guidance=1.0, batch_size=batch_size)
    return counter.get_total_flops() / batch_size


def images_per_second(history: pd.DataFrame, batch_size: int) -> float:
    """Median speed of training between checkpoints."""
    steps, seconds = history[0].diff(), history[2].diff()
    return float((batch_size * steps / seconds)[seconds > 0].median())


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(n=10_000)
    options.add_argument("--config", default="half-hour", help="configuration of which only the schedule is changed")
    options.add_argument("--peak", type=float, help="peak of the device in TFLOP/s")
    arguments = parse(options)
    clock, file = Clock(arguments.minutes), RESULTS / "schedules.csv"
    rows = pd.read_csv(file).to_dict("records") if file.is_file() else []
    network = CifarResNet.load(arguments.data / "img" / "weights" / "resnet56-4bfd9763.th")
    try:
        for schedule in ("cosine", "logit_linear"):
            config = get_config(arguments.config).with_options(schedule=schedule)
            folder = arguments.runs / f"{arguments.config}_{schedule}"
            train, test = (read(arguments.data, config, split) for split in ("train", "test"))
            model = trained(config, train, folder, clock)
            for attrition, guidance in itertools.product((0.0, 0.005), (1.0, 2.0)):
                setting = {"schedule": schedule, "attrition": attrition, "guidance": guidance}
                if any(all(row[k] == v for k, v in setting.items()) for row in rows):
                    continue
                start = time.perf_counter()
                where = folder / f"attrition {attrition:g} guidance {guidance:g}"
                chosen = {"attrition": attrition, "guidance": guidance}
                drawn = sampled(model, where, arguments.n, train.codes, clock, arguments.batch_size, **chosen)
                seconds = time.perf_counter() - start
                speed = images_per_second(pd.read_csv(folder / "history.csv", header=None), config.batch_size)
                row = setting | {
                    "device": torch.cuda.get_device_name() if device() == "cuda" else "cpu",
                    "train_images_per_second": speed,
                    "last_sampled_images_per_second": len(drawn) / seconds,  # of the slice that ended it
                    "resnet_frechet_train": resnet_frechet_distance(train.pixels, drawn, network),
                    "resnet_frechet_test": resnet_frechet_distance(test.pixels, drawn, network),
                }
                if arguments.peak is not None:  # a step is a pass forwards and two backwards
                    row["share_of_peak"] = 3 * flops_per_image(model) * speed / (1e12 * arguments.peak)
                if arguments.inception is not None:
                    weights = None if arguments.inception == "download" else arguments.inception
                    row["fid_train"] = inception_scores(train.pixels, drawn, weights).fid
                rows.append(row)
                pd.DataFrame(rows).to_csv(file, index=False)
                print(row, flush=True)
    except OutOfTime:
        print("The slice is over; start again to go on.")
    else:
        print(f"All done: {file}")


if __name__ == "__main__":
    main()
