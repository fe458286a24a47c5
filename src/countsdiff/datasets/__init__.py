"""Real counts to try things on."""

from ._pbmc3k import pbmc3k
from .atlases import fetal_atlas, heart_atlas

__all__ = ["fetal_atlas", "heart_atlas", "pbmc3k"]
