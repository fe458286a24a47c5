"""AnnData on disk, in .h5ad files and zarr stores."""

from countsdiff.store.reading import open_store

__all__ = ["open_store"]
