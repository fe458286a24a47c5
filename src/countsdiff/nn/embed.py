"""Conditioning: covariates with an unknown state, and feature-wise modulation."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

LayerT = TypeVar("LayerT", nn.Linear, nn.Conv2d)


class CovariateEmbedding(nn.Module):
    """Embeds categorical and continuous covariates, each of which may be unknown.

    Parameters
    ----------
    n_categories
        Number of categories of each categorical covariate.
    n_continuous
        Number of continuous covariates.
    dim
        Length of one embedding.
    """

    def __init__(self, n_categories: Sequence[int], n_continuous: int, dim: int = 16):
        super().__init__()
        self.n_categories = list(n_categories)
        tables = [nn.Embedding(n + 1, dim) for n in n_categories]  # the last row: unknown
        for table in tables:
            nn.init.normal_(table.weight, std=0.3)
        self.tables = nn.ModuleList(tables)
        self.n_continuous = n_continuous
        self.dim = dim
        self.n_features = dim * len(n_categories) + 2 * n_continuous

    def forward(self, categories: Tensor, continuous: Tensor) -> Tensor:
        """Covariates → features, shape ``(n_obs, n_features)``.

        Parameters
        ----------
        categories
            Codes, −1 where unknown; int64, shape ``(n_obs, n_categorical)``.
        continuous
            Standardised values, NaN where unknown; shape ``(n_obs, n_continuous)``.

        Raises
        ------
        ValueError
            If there are more or fewer categorical covariates than there were.
        """
        if categories.shape[1] != len(self.tables):
            raise ValueError(
                f"There are {len(self.tables)} categorical covariates; got codes of {categories.shape[1]}."
            )
        features = [
            table(torch.where(code < 0, n, code))
            for table, n, code in zip(self.tables, self.n_categories, categories.unbind(1), strict=True)
        ]
        unknown = continuous.isnan()
        features += [continuous.nan_to_num(), unknown.to(continuous.dtype)]
        return torch.cat(features, dim=1)

    def adopted_tables(
        self, reference: "CovariateEmbedding", origins: Sequence[int | None]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Tables that say what those of a reference say, and where its features are among the own ones.

        A category that the reference does not know gets its row for "unknown". A covariate it does not know gets zeros,
        which add nothing to the layer behind.

        Parameters
        ----------
        reference
            Embedding of as many or fewer covariates and categories, the first ones of each being the same.
        origins
            For each table the number of the reference's table, or ``None``.

        Returns
        -------
        tuple
            Tables by their names in the state dict, and the positions of the reference's features, in its order.
        """
        tables, positions = {}, [torch.empty(0, dtype=torch.int64) for _ in reference.tables]
        start, dim = 0, self.dim
        for i, (n, origin) in enumerate(zip(self.n_categories, origins, strict=True)):
            rows = torch.zeros(n + 1, dim)
            if origin is not None:
                known = reference.state_dict()[f"tables.{origin}.weight"]
                rows[:] = known[-1]
                rows[: len(known) - 1] = known[:-1]
                positions[origin] = torch.arange(start, start + dim)
            tables[f"tables.{i}.weight"] = rows
            start += dim
        return tables, torch.cat([*positions, torch.arange(start, self.n_features)])


class FiLM(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018) after layer normalisation, the identity at the start.

    Parameters
    ----------
    n_features
        Length of the conditioning vector.
    width
        Length of what is modulated.
    """

    def __init__(self, n_features: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.modulation = zeroed(nn.Linear(n_features, 2 * width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Normalise and modulate `h`, shape ``(n_obs, width)``."""
        scale, shift = self.modulation(condition).chunk(2, dim=1)
        modulated: Tensor = self.norm(h) * (1.0 + scale) + shift
        return modulated


def zeroed(layer: LayerT) -> LayerT:
    """Start a layer at zero, so that the untrained network adds nothing to what is known without it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # the layers here have one
    return layer
