"""scvi-tools-style model class; the only package that imports scvi."""

from countsdiff.model._imputer import CountsDiffImputer

__all__ = ["CountsDiffImputer"]
