"""Networks: plain modules that turn :class:`~countsdiff.core.interfaces.Evidence` into two numbers per entry."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from countsdiff.nn.embed import CovariateEmbedding
from countsdiff.nn.gene_mlp import GeneMLP
from countsdiff.nn.gene_transformer import GeneTransformer
from countsdiff.nn.linear import LinearEstimate
from countsdiff.nn.unet import UNet

BackboneName = Literal["mlp", "transformer"]

_BACKBONES: dict[str, type[GeneMLP] | type[GeneTransformer]] = {"mlp": GeneMLP, "transformer": GeneTransformer}


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
        ``n_groups``, ``n_factors``, ``width``, ``depth``, ``dropout``; None for the backbone's own default.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    chosen = {key: value for key, value in size.items() if value is not None}
    return backbone_class(name)(n_vars, n_categories, n_continuous, **chosen)


def backbone_class(name: BackboneName) -> type[GeneMLP] | type[GeneTransformer]:
    """Class of a backbone for cells, see :func:`get_backbone`."""
    if name not in _BACKBONES:
        raise ValueError(f"Unknown backbone {name!r}; choose one of {', '.join(_BACKBONES)}.")
    return _BACKBONES[name]


def adopted_state(backbone: nn.Module, reference: nn.Module, origins: Sequence[int | None]) -> dict[str, Tensor]:
    """Weights with which a backbone answers as a reference that knows fewer covariates or categories.

    Of the transformer that is nearly so: a covariate that the reference lacks is one more token, which takes a little
    of the attention until it is trained.

    Parameters
    ----------
    backbone, reference
        Backbones of the same kind and size.
    origins
        For each categorical covariate its number in the reference, or ``None`` if that does not have it.
    """
    own_covariates, known_covariates = backbone.covariates, reference.covariates
    assert isinstance(own_covariates, CovariateEmbedding)
    assert isinstance(known_covariates, CovariateEmbedding)
    own, known = backbone.state_dict(), reference.state_dict()
    tables, positions = own_covariates.adopted_tables(known_covariates, origins)
    adopted = {f"covariates.{name}": table for name, table in tables.items()}
    for name, weight in own.items():
        if name in adopted:
            continue
        adopted[name] = known[name]
        if weight.shape != known[name].shape:  # a layer whose last inputs are the features of the covariates
            n_before = known[name].shape[1] - len(positions)
            adopted[name] = weight.clone()
            adopted[name][:, :n_before] = known[name][:, :n_before]
            adopted[name][:, n_before + positions] = known[name][:, n_before:]
    return adopted


__all__ = ["BackboneName", "GeneMLP", "GeneTransformer", "LinearEstimate", "UNet", "adopted_state", "get_backbone"]
