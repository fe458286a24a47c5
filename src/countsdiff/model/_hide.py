"""Which entries of a minibatch training hides."""

from collections.abc import Sequence

import torch
from torch import Tensor

_SHARE_ALL = 0.1  # cells of which everything is hidden: what generation needs
_SHARE_WHOLE_GROUPS = 0.4  # cells of which whole modalities are hidden, and nothing else


def hide(
    observed: Tensor, group_sizes: Sequence[int], generator: torch.Generator, share: float | None = None
) -> Tensor:
    """Hide scattered entries of cells, or, where there are several modalities, whole ones.

    Parameters
    ----------
    observed
        Entries that are not missing; boolean, shape ``(n_obs, n_vars)``.
    group_sizes
        Numbers of variables of each modality.
    generator
        Source of randomness.
    share
        Share of the entries to hide; None for one drawn per cell evenly from [0, 1].

    Returns
    -------
    Tensor
        Boolean, shape ``(n_obs, n_vars)``; entries that are missing may be among them.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=observed.device)

    n_obs = len(observed)
    shares = torch.where(uniform(n_obs, 1) < _SHARE_ALL, 1.0, uniform(n_obs, 1))
    if share is not None:
        shares = torch.full_like(shares, share)
    hidden = uniform(*observed.shape) < shares
    if len(group_sizes) == 1:
        return hidden
    # the task of cells that lack a modality: others complete, of it nothing known. Some of those that a cell has are
    # chosen, and never all of them: there would be nothing to learn from the one, nor to go by in the other
    lacks = torch.stack([~part.any(1) for part in observed.split(list(group_sizes), dim=1)], dim=1)
    n_there = (~lacks).sum(1, keepdim=True)
    rank = (uniform(*lacks.shape) + lacks).argsort(1).argsort(1)  # those that are lacking come last
    chosen = rank < 1 + (uniform(n_obs, 1) * (n_there - 1)).floor()
    whole = torch.cat([chosen[:, i : i + 1].expand(-1, size) for i, size in enumerate(group_sizes)], dim=1)
    return torch.where((uniform(n_obs, 1) < _SHARE_WHOLE_GROUPS) & (n_there > 1), whole, hidden)
