"""How networks for cells are trained, ours and those of the rivals: AdamW under one learning-rate cycle."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR


def adamw_cycle(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, n_steps: int, *, fused: bool = True
) -> tuple[torch.optim.AdamW, OneCycleLR]:
    """Build AdamW (Loshchilov & Hutter 2019), and the cycle of its learning rate (Smith & Topin 2018).

    Parameters
    ----------
    parameters
        Weights. Biases are not decayed: they hold the level of a gene, which is to be learnt and not to be shrunk.
    lr
        Peak learning rate, reached after a tenth of the steps.
    weight_decay
        Decoupled weight decay.
    n_steps
        Length of training.
    fused
        Whether to take torch's fused step, which is twice as fast.
    """
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=fused)
    # a tenth, and a bit: a warm-up of exactly one step divides by zero in torch
    return optimizer, OneCycleLR(optimizer, lr, total_steps=n_steps, pct_start=0.101)
