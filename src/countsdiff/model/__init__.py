"""scvi-tools-style model class."""

from countsdiff.model._imputer import CountsDiffImputer

__all__ = ["CountsDiffImputer"]
