"""The paper's pictures: a grid of classes by guidance, and strips of paths by attrition.

    python benchmarks/images/figures.py --runs DIR [--config half-hour] [--columns 8]

draws them with the trained model that lies in the folder of its configuration. Generated images only.
"""

import numpy as np
from _common import RESULTS, device, parse, parser

from countsdiff.image.grid import save_grid
from countsdiff.image.pixel_model import PixelModel

GUIDANCE = (0.0, 1.0, 2.0, 4.0)
ATTRITION = (0.0, 0.005, 0.05, 0.5)
SHOWN = (0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # survival probabilities of a strip


def guidance_grid(model: PixelModel, n_columns: int, folder) -> None:
    """One picture per class: rows are guidance scales, columns the same random numbers."""
    for code, name in enumerate(model.categories[0]):
        codes = np.full((n_columns, 1), code)
        rows = [model.sample(n_columns, codes=codes, guidance=scale, batch_size=n_columns) for scale in GUIDANCE]
        save_grid(np.concatenate(rows), folder / f"guidance_{name}.png", n_columns, zoom=2)


def attrition_strips(model: PixelModel, folder) -> None:
    """Rows are shares of attrition, columns states of one path, scaled to the brightness of its end."""
    strips = []
    for eta in ATTRITION:
        states = []

        def keep(state, states=states) -> None:
            scaled = (state.x[0] / state.p).clamp(0, 255).round()
            states.append((state.p, scaled.view(model.shape).byte().cpu().numpy()))

        codes = np.zeros((1, len(model.categories)), dtype=np.int64)
        model.sample(1, codes=codes, attrition=eta, batch_size=1, callback=keep)
        strips += [min(states, key=lambda s: abs(s[0] - p))[1] for p in SHOWN]
    save_grid(np.stack(strips), folder / "attrition.png", len(SHOWN), zoom=3)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", default="half-hour")
    options.add_argument("--columns", type=int, default=8)
    arguments = parse(options, needs_data=False)
    model = PixelModel.load(arguments.runs / arguments.config, device())
    folder = RESULTS / arguments.config
    folder.mkdir(parents=True, exist_ok=True)
    attrition_strips(model, folder)
    if model.categories:
        guidance_grid(model, arguments.columns, folder)
    print(f"Wrote {folder}.")


if __name__ == "__main__":
    main()
