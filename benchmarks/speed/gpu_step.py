"""Where a step of training on a GPU goes: milliseconds of each of its parts, and of the host that launches them.

python benchmarks/speed/gpu_step.py --backbone mlp transformer --precision 32-true bf16-mixed

Synthetic cells as in throughput.py, 1,000 genes. Where the host takes as long as the device does, the device waits.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from throughput import cells, wait

from countsdiff import CountsDiffImputer
from countsdiff.core.optim import adamw_cycle
from countsdiff.model._graph import GraphedLoss

GPU = torch.device("cuda")
REPEATS = 60


def milliseconds(job: Callable[[], object]) -> str:
    """Mean time of a job, and of the host's part in it, after some runs that do not count."""
    for _ in range(8):
        job()
    wait()
    start = time.perf_counter()
    for _ in range(REPEATS):
        job()
    launched = time.perf_counter()
    wait()
    whole, host = ((now - start) / REPEATS * 1e3 for now in (time.perf_counter(), launched))
    return f"{whole:.2f} ms (host {host:.2f})"


def parts(backbone: str, width: int | None, precision: str, batch_size: int) -> dict[str, str]:
    """Time of each part of a step."""
    adata = cells(8_192, 1_000).copy()
    CountsDiffImputer.setup_anndata(adata)
    model = CountsDiffImputer(adata, backbone=backbone, width=width)
    module, generator = model.module.to(GPU).train(), torch.Generator(GPU).manual_seed(0)
    loader = iter(model._make_data_loader(adata=adata, batch_size=batch_size))
    start = time.perf_counter()
    batches = list(islice(loader, 8))
    reading = (time.perf_counter() - start) / len(batches) * 1e3
    batch = {name: tensor.to(GPU) for name, tensor in batches[0].items()}
    noised = module.noised(batch, generator)
    optimizer, _ = adamw_cycle(module.denoiser.parameters(), 2e-3, 1.0, 100_000)

    def mixed() -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False)

    with mixed():
        graph = GraphedLoss(module, noised)

    def forward() -> torch.Tensor:
        with mixed():
            return module.loss(noised, batch_size)

    def both(loss: Callable[[], torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(module.denoiser.parameters(), 1.0)
        optimizer.step()

    both(forward)
    return {
        "reading": f"{reading:.2f} ms",
        "hiding and thinning": milliseconds(lambda: module.noised(batch, generator)),
        "forwards": milliseconds(forward),
        "forwards and backwards": milliseconds(lambda: both(forward)),
        "the same as a graph": milliseconds(lambda: both(lambda: graph(noised))),
        "clipping and AdamW": milliseconds(update),
        "averaging": milliseconds(lambda: module.averaged.update(module.denoiser)),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--backbone", nargs="+", default=["mlp"])
    options.add_argument("--width", type=int)
    options.add_argument("--precision", nargs="+", default=["32-true"])
    options.add_argument("--batch-size", nargs="+", type=int, default=[128])
    args = options.parse_args()
    warnings.simplefilter("ignore")
    for backbone in args.backbone:
        for precision in args.precision:
            for batch_size in args.batch_size:
                print(f"{backbone}, {precision}, {batch_size} cells")
                for name, took in parts(backbone, args.width, precision, batch_size).items():
                    print(f"  {name}: {took}", flush=True)


if __name__ == "__main__":
    main()
