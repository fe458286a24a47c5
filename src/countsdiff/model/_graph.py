"""The loss of a minibatch as a CUDA graph: one thing to launch in place of several hundred small kernels."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from countsdiff.core.denoiser import Denoiser
from countsdiff.core.heads import GammaHead, RateHead, X0Head
from countsdiff.model._module import CountsDiffModule
from countsdiff.model._noised import NoisedCells
from countsdiff.nn import GeneMLP, GeneTransformer

_RECENT = TorchVersion(torch.__version__) >= "2.11"  # earlier versions of torch have not been tried


def can_be_captured(module: CountsDiffModule) -> bool:
    """Whether a GPU runs the same kernels for all cells: what others add may decide by what it sees, or wait for it."""
    denoiser = module.denoiser
    built_in = (
        type(denoiser) is Denoiser
        and type(denoiser.backbone) in (GeneMLP, GeneTransformer)
        and type(denoiser.head) in (GammaHead, RateHead, X0Head)
    )
    return _RECENT and built_in and denoiser.mean.device.type == "cuda"


class GraphedLoss:
    """The loss of :class:`~countsdiff.model._module.CountsDiffModule`, captured with its gradients.

    A step of the default network takes a GPU one millisecond, and takes a host seven to launch kernel by kernel.

    Parameters
    ----------
    module
        Whose loss, in training mode.
    cells
        Any on the module's device: graphs are of a fixed size.
    """

    def __init__(self, module: CountsDiffModule, cells: NoisedCells):
        self.n_cells = len(cells)
        inputs = tuple(tensor.clone() for tensor in cells.tensors())  # which every replay writes into
        # trial runs draw for dropout, too, and are not to move the stream of the training
        with torch.random.fork_rng(devices=[cells.levels.p.device]):
            self._total: Any = torch.cuda.make_graphed_callables(_Total(module), inputs, allow_unused_input=True)

    def __call__(self, cells: NoisedCells) -> Tensor:
        """Sum of the losses of `cells`, as many as there were then."""
        total: Tensor = self._total(*cells.tensors())
        return total.clone()  # the next replay writes into the same memory


class _Total(nn.Module):
    """What a graph can be made of: tensors in, a tensor out, and the weights that get gradients."""

    def __init__(self, module: CountsDiffModule):
        super().__init__()
        self.denoiser = module.denoiser
        self._loss = module.loss

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._loss(NoisedCells.of(tensors), 1.0)
