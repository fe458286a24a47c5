"""Real counts to try things on."""

from ._atlases import fetal_atlas, heart_atlas
from ._pbmc3k import pbmc3k

__all__ = ["fetal_atlas", "heart_atlas", "pbmc3k"]
