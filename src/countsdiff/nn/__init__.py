"""Networks: plain modules that turn :class:`~countsdiff.core.denoiser.Evidence` into two numbers per entry."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn

from countsdiff.nn.gene_mlp import GeneMLP
from countsdiff.nn.gene_transformer import GeneTransformer
from countsdiff.nn.unet import UNet

BackboneName = Literal["mlp", "transformer"]

_BACKBONES: dict[str, Callable[..., nn.Module]] = {"mlp": GeneMLP, "transformer": GeneTransformer}


def get_backbone(
    name: BackboneName, n_vars: int, n_categories: Sequence[int], n_continuous: int, **size: Any
) -> nn.Module:
    """Build a backbone for cells.

    Parameters
    ----------
    name
        ``"mlp"``: :class:`GeneMLP`; ``"transformer"``: :class:`GeneTransformer`.
    n_vars, n_categories, n_continuous
        Numbers of genes, of the categories of each categorical covariate, and of continuous covariates.
    **size
        ``width``, ``depth``, ``dropout``; None for the backbone's own default.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if name not in _BACKBONES:
        raise ValueError(f"Unknown backbone {name!r}; choose one of {', '.join(_BACKBONES)}.")
    chosen = {key: value for key, value in size.items() if value is not None}
    return _BACKBONES[name](n_vars, n_categories, n_continuous, **chosen)


__all__ = ["BackboneName", "GeneMLP", "GeneTransformer", "UNet", "get_backbone"]
