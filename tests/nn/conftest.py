from collections.abc import Callable

import pytest
import torch

from countsdiff.core import Evidence


@pytest.fixture
def make_evidence() -> Callable[..., Evidence]:
    """Draw evidence of `n_obs` cells, categorical covariates of 3 and 2 categories, a continuous one, 3 factors."""

    def make(n_obs: int, n_vars: int, seed: int = 0) -> Evidence:
        generator = torch.Generator().manual_seed(seed)
        return Evidence(
            log_ratio=torch.randn(n_obs, n_vars, generator=generator),
            exposure=torch.rand(n_obs, n_vars, generator=generator),
            summary=torch.randn(n_obs, 3, generator=generator),
            categories=torch.stack([torch.arange(n_obs) % 3, torch.arange(n_obs) % 2], dim=1),
            continuous=torch.randn(n_obs, 1, generator=generator),
            base=1.0 + torch.rand(n_obs, n_vars, generator=generator),
            factors=torch.randn(n_obs, 3, generator=generator),
        )

    return make
