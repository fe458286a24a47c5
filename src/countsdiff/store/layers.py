"""Layers and their records, added to a store block of rows by block of rows."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import zarr
from scipy import sparse

from countsdiff.layers import outdated_layers
from countsdiff.store.hdf5 import hdf5_file
from countsdiff.store.reading import open_zarr

_SPARSE_CHUNK = 2**17  # entries


def add_layers(path: Path, blocks: Iterable[Mapping[str, Any]], n_obs: int) -> None:
    """Add layers to a store, block of rows by block of rows; layers of these names that the store has go.

    Parameters
    ----------
    path
        Store to write to.
    blocks
        Consecutive rows of every layer by its name, all CSR or all dense.
    n_obs
        Number of rows that all blocks have together.
    """
    with _to_change(path) as group:
        layers = group.require_group("layers")
        start = 0
        for block in blocks:
            for name, rows in block.items():
                if start == 0:
                    _create(layers, name, rows, n_obs)
                elif sparse.issparse(rows):
                    ad.io.sparse_dataset(layers[name]).append(rows)
                if not sparse.issparse(rows):
                    layers[name][start : start + len(rows)] = rows
            start += next(iter(block.values())).shape[0]


def add_record(path: Path, key: str, record: Mapping[str, Any]) -> None:
    """Write where a layer comes from to ``uns["countsdiff"]`` of a store."""
    with _to_change(path) as group:
        if "uns" not in group:
            ad.io.write_elem(group, "uns", {})
        known = ad.io.read_elem(group["uns/countsdiff"]) if "uns/countsdiff" in group else {}
        for name in outdated_layers(known, key, record):
            if name in group["layers"]:
                del group["layers"][name]
        ad.io.write_elem(group["uns"], "countsdiff", {**known, key: dict(record)})


@contextmanager
def _to_change(path: Path) -> Iterator[Any]:
    if path.is_dir():
        group = open_zarr(path, "r+")
        yield group
        zarr.consolidate_metadata(group.store)
    else:
        with hdf5_file(path, "r+") as file:
            yield file


def _create(layers: Any, name: str, rows: Any, n_obs: int) -> None:
    """Write the first rows of a layer, CSR, or make room for all of a dense one."""
    if sparse.issparse(rows):
        # counted in 64 bits: atlases have more entries than 32 can tell apart
        settings: dict[str, Any] = {"indptr_dtype": np.dtype(np.int64)}
        if isinstance(layers, zarr.Group):  # chunks are files, and would have the size of the first block, be it empty
            settings["chunks"] = (_SPARSE_CHUNK,)
        ad.io.write_elem(layers, name, rows, dataset_kwargs=settings)
        return
    if name in layers:
        del layers[name]
    create = layers.create_dataset if isinstance(layers, h5py.Group) else layers.create_array
    array = create(name, shape=(n_obs, rows.shape[1]), dtype=rows.dtype, chunks=(min(256, n_obs), rows.shape[1]))
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
