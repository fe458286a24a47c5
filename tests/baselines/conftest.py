import numpy as np
import pytest


@pytest.fixture(scope="session")
def cells():
    """Three kinds of cells that differ in depth: counts, their means, and the kinds."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(3, size=150)
    profiles = rng.gamma(0.5, 4.0, (3, 60))
    means = (rng.gamma(4.0, 0.25, (150, 1)) * profiles[kinds]).astype(np.float32)
    return rng.poisson(means).astype(np.float32), means, kinds
