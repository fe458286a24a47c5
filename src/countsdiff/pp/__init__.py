"""Preparing counts: choose genes, hide entries, split molecules."""

from ._genes import highly_variable
from ._impute import impute
from ._masks import hide_entries, mar, mar_block, mcar, mnar
from ._randomise import poisson_counts
from ._split import molecular_split

__all__ = [
    "hide_entries",
    "highly_variable",
    "impute",
    "mar",
    "mar_block",
    "mcar",
    "mnar",
    "molecular_split",
    "poisson_counts",
]
