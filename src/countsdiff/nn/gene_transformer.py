"""The paper's backbone for cells: attention over genes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from countsdiff.core.interfaces import Evidence
from countsdiff.nn.embed import CovariateEmbedding

_HEAD_WIDTH = 16


class GeneTransformer(nn.Module):
    """Transformer with a token per gene (its identity and what was seen of it) and tokens for the cell.

    The architecture of CountsDiff (arXiv 2604.03779): 3 layers, 64 or 128 wide, heads of 16. Tokens of the cell are one
    for each categorical covariate, one for the continuous ones, and one for noise level, depth and share seen.

    Cost per cell and pass: about depth × (24 n width² + 4 n² width) floating point operations for n genes, 1.1 billion
    at 1,000 genes and the default size, where :class:`~countsdiff.nn.gene_mlp.GeneMLP` needs 3 million: it is for GPUs,
    where attention is fused (and runs in bfloat16 under ``precision="bf16-mixed"``) and never holds the n × n matrix.

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
        Length of a token, a multiple of 16.
    depth
        Number of layers.
    dropout
        Share of hidden units dropped in training.

    Raises
    ------
    ValueError
        If the width is not a multiple of 16.
    """

    def __init__(
        self,
        n_vars: int,
        n_categories: Sequence[int] = (),
        n_continuous: int = 0,
        *,
        n_groups: int = 1,
        n_factors: int = 0,
        width: int = 64,
        depth: int = 3,
        dropout: float = 0.1,
    ):
        super().__init__()
        if width % _HEAD_WIDTH != 0:
            raise ValueError(f"The width of a gene transformer must be a multiple of {_HEAD_WIDTH}; got {width}.")
        self.n_vars, self.width = n_vars, width
        self.covariates = CovariateEmbedding(n_categories, n_continuous, dim=width)
        self.continuous = nn.Linear(2 * n_continuous, width) if n_continuous > 0 else None
        self.genes = nn.Parameter(0.3 * torch.randn(n_vars, width))
        self.seen = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.summary = nn.Sequential(nn.Linear(1 + 2 * n_groups + n_factors, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        # a reading of its own for every gene; zero, so that the untrained network adds nothing
        self.log_mean = _Readout(n_vars, width)
        self.log_shape = _Readout(n_vars, width)

    def forward(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """See :class:`countsdiff.core.interfaces.Backbone`."""
        seen = torch.stack([evidence.log_ratio, evidence.exposure], dim=2)
        tokens = torch.cat([self.genes + self.seen(seen), self._cell_tokens(evidence)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        h = self.norm(tokens[:, : self.n_vars])
        return self.log_mean(h), self.log_shape(h.detach())

    def _cell_tokens(self, evidence: Evidence) -> Tensor:
        features = self.covariates(evidence.categories, evidence.continuous)
        n_obs, n_categorical = evidence.categories.shape
        categorical, continuous = features.tensor_split([n_categorical * self.width], dim=1)
        summary = self.summary(torch.cat([evidence.summary, evidence.factors], dim=1))
        tokens = [summary.unsqueeze(1), categorical.reshape(n_obs, n_categorical, self.width)]
        if self.continuous is not None:
            tokens.append(self.continuous(continuous).unsqueeze(1))
        return torch.cat(tokens, dim=1)


class _Block(nn.Module):
    """Pre-norm attention and feed-forward layer."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        n_obs, n_tokens, width = tokens.shape
        projected = self.project(self.attention_norm(tokens)).view(n_obs, n_tokens, 3, -1, _HEAD_WIDTH)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n_obs, n_tokens, width)
        tokens = tokens + self.dropout(self.merge(attended))
        updated: Tensor = tokens + self.dropout(self.feed(self.feed_norm(tokens)))
        return updated


class _Readout(nn.Module):
    """One number from the token of each gene."""

    def __init__(self, n_vars: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_vars, width))
        self.bias = nn.Parameter(torch.zeros(n_vars))

    def forward(self, h: Tensor) -> Tensor:
        return (h * self.weight).sum(2) + self.bias
