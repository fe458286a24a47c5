"""The paper's tables of images: FID and Inception Score of every schedule on CIFAR-10, and of CelebA.

    python benchmarks/images/tables.py --data DIR --runs DIR --inception PATH [CONFIG ...]

Each start is a slice of --minutes; start it again until it says that all is done. 50,000 images are drawn, and held
against the training and the test images. Scores of the ResNet-56 stand beside, under their own name.
"""

import pandas as pd
from _common import RESULTS, Clock, OutOfTime, parse, parser, read, sampled, trained

from countsdiff.image.config import config_names, get_config
from countsdiff.image.evaluate import inception_scores, resnet_frechet_distance
from countsdiff.image.resnet import CifarResNet

PAPER = [name for name in config_names() if name.startswith(("cifar10", "celeba"))]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("configs", nargs="*", default=PAPER, help="configurations; default: the paper's")
    arguments = parse(options)
    clock, file = Clock(arguments.minutes), RESULTS / "tables.csv"
    rows = pd.read_csv(file).to_dict("records") if file.is_file() else []
    network = CifarResNet.load(arguments.data / "img" / "weights" / "resnet56-4bfd9763.th")
    try:
        for name in arguments.configs:
            if any(row["config"] == name for row in rows):
                continue
            config, folder = get_config(name), arguments.runs / name
            train, test = (read(arguments.data, config, split) for split in ("train", "test"))
            model = trained(config, train, folder, clock)
            codes = train.codes if config.conditional else None
            drawn = sampled(model, folder / "samples", arguments.n, codes, clock, arguments.batch_size)
            row = {"config": name, "n_generated": len(drawn)}
            for split, images in (("train", train), ("test", test)):
                row |= {f"n_{split}": len(images)}
                row |= {f"resnet_frechet_{split}": resnet_frechet_distance(images.pixels, drawn, network)}
                if arguments.inception is not None:
                    weights = None if arguments.inception == "download" else arguments.inception
                    scores = inception_scores(images.pixels, drawn, weights)
                    row |= {f"fid_{split}": scores.fid, "inception_score": scores.inception_score}
            rows.append(row)
            pd.DataFrame(rows).to_csv(file, index=False)
            print(row, flush=True)
    except OutOfTime:
        print("The slice is over; start again to go on.")
    else:
        print(f"All done: {file}")


if __name__ == "__main__":
    main()
