"""The default backbone for cells: a residual MLP over all genes at once."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from countsdiff.core.interfaces import Evidence
from countsdiff.nn.embed import CovariateEmbedding, FiLM, zeroed

_CONDITION = 64  # length of the conditioning vector


class GeneMLP(nn.Module):
    """Residual MLP, modulated by the noise level, size factor and covariates.

    It starts from the factors of what was seen, by which it tells kinds of cells apart from the first step on.

    Cost per cell grows with ``n_vars × width``: a laptop's choice, where attention over genes is a GPU's.

    Parameters
    ----------
    n_vars
        Number of genes.
    n_categories
        Number of categories of each categorical covariate.
    n_continuous
        Number of continuous covariates.
    n_groups
        Number of groups of variables with a size factor of their own.
    n_factors
        Number of factors, see :class:`~countsdiff.core.FactorModel`.
    width
        Hidden width.
    depth
        Number of residual blocks.
    dropout
        Share of hidden units dropped in training.
    """

    def __init__(
        self,
        n_vars: int,
        n_categories: Sequence[int] = (),
        n_continuous: int = 0,
        *,
        n_groups: int = 1,
        n_factors: int = 0,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.covariates = CovariateEmbedding(n_categories, n_continuous)
        self.condition = nn.Sequential(nn.Linear(1 + 2 * n_groups + self.covariates.n_features, _CONDITION), nn.SiLU())
        self.encode = nn.Linear(2 * n_vars, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.film = FiLM(_CONDITION, width)
        self.log_mean = zeroed(nn.Linear(width, n_vars))
        self.log_shape = zeroed(nn.Linear(width, n_vars))
        self.factors_to_hidden = nn.Parameter(torch.randn(n_factors, width) / math.sqrt(3 * max(n_factors, 1)))
        self.factors_to_log_mean = nn.Parameter(torch.zeros(n_factors, n_vars))

    def forward(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """See :class:`countsdiff.core.interfaces.Backbone`."""
        covariates = self.covariates(evidence.categories, evidence.continuous)
        condition = self.condition(torch.cat([evidence.summary, covariates], dim=1))
        encoded = self.encode(torch.cat([evidence.log_ratio, evidence.exposure], dim=1))
        h = self.dropout(F.gelu(encoded + evidence.factors @ self.factors_to_hidden))
        for block in self.blocks:
            h = block(h, condition)
        h = self.film(h, condition)
        log_mean = self.log_mean(h) + evidence.factors @ self.factors_to_log_mean
        return log_mean, self.log_shape(h.detach())


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.film = FiLM(_CONDITION, width)
        self.expand = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.contract = zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        update: Tensor = self.contract(self.dropout(F.gelu(self.expand(self.film(h, condition)))))
        return h + update
