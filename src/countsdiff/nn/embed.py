"""Conditioning: covariates with an unknown state, and feature-wise modulation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
        self.n_features = dim * len(n_categories) + 2 * n_continuous

    def forward(self, categories: Tensor, continuous: Tensor) -> Tensor:
        """Covariates → features, shape ``(n_obs, n_features)``.

        Parameters
        ----------
        categories
            Codes, −1 where unknown; int64, shape ``(n_obs, n_categorical)``.
        continuous
            Standardised values, NaN where unknown; shape ``(n_obs, n_continuous)``.
        """
        features = [
            table(torch.where(code < 0, n, code))
            for table, n, code in zip(self.tables, self.n_categories, categories.unbind(1), strict=True)
        ]
        unknown = continuous.isnan()
        features += [continuous.nan_to_num(), unknown.to(continuous.dtype)]
        return torch.cat(features, dim=1)


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
        self.modulation = nn.Linear(n_features, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Normalise and modulate `h`, shape ``(n_obs, width)``."""
        scale, shift = self.modulation(condition).chunk(2, dim=1)
        modulated: Tensor = self.norm(h) * (1.0 + scale) + shift
        return modulated
