"""Preparing counts: choose genes, hide entries, split molecules."""

from ._genes import highly_variable
from ._impute import impute
from ._masks import hide_entries, mcar
from ._split import molecular_split

__all__ = ["hide_entries", "highly_variable", "impute", "mcar", "molecular_split"]
