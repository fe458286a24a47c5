"""Stores opened without reading their matrices."""

from pathlib import Path
from typing import Any, Literal

import anndata as ad
import h5py
import zarr
from anndata import AnnData


def open_store(path: str | Path) -> AnnData:
    """Open an .h5ad file or a zarr store; ``X`` and the layers stay on disk.

    Parameters
    ----------
    path
        File, or folder of a zarr store.

    Returns
    -------
    AnnData
        With ``obs``, ``var``, the records of countsdiff in ``uns``, ``X`` and ``layers``, of which the last two take no
        memory. A matrix is read where it is indexed, by rows: the model trains on such data and imputes them as any
        other.

    Raises
    ------
    ValueError
        If there is no such store, or it is damaged.

    Examples
    --------
    >>> adata = countsdiff.store.open_store("atlas.h5ad")
    >>> model = CountsDiffImputer(adata)
    >>> model.train()
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder.")
    group: Any = None
    try:
        group = open_zarr(path, "r") if path.is_dir() else h5py.File(path, "r")
        layers = {name: _lazy(group["layers"][name]) for name in group["layers"]} if "layers" in group else {}
        return AnnData(
            _lazy(group["X"]) if "X" in group else None,
            obs=ad.io.read_elem(group["obs"]),
            var=ad.io.read_elem(group["var"]),
            layers=layers,
            uns={"countsdiff": ad.io.read_elem(group["uns/countsdiff"])} if "uns/countsdiff" in group else None,
        )
    except Exception as error:  # a damaged store makes the libraries that read it raise anything
        if isinstance(group, h5py.File):
            group.close()  # or nobody could write it again while the error is looked at
        raise ValueError(
            f"{path}: this is no AnnData store, or a damaged one ({cause_of(error)}); write it again."
        ) from error


def cause_of(error: Exception) -> str:
    """What is wrong with a file, in one line, by what was raised when it was read."""
    return "it is truncated" if "truncated" in str(error) else " ".join(str(error).split()) or "it is damaged"


def check_stored_sparse(group: Any) -> None:
    """Check that a group of a store can be the sparse matrix it says it is, before it is read.

    Raises
    ------
    ValueError
        If its parts are of the wrong type or shape: libraries would fill memory with numbers that are not there.
    """
    data, indices, pointers = (group[name] for name in ("data", "indices", "indptr"))
    if any(part.dtype.kind not in "iu" for part in (indices, pointers)):
        raise ValueError(f"indices of the sparse matrix {group.name} are no whole numbers")
    if any(part.ndim != 1 for part in (data, indices, pointers)):
        raise ValueError(f"parts of the sparse matrix {group.name} are no rows of numbers")
    if data.shape != indices.shape:
        raise ValueError(f"the sparse matrix {group.name} has {data.shape[0]} values and {indices.shape[0]} indices")


def open_zarr(path: Path, mode: Literal["r", "r+"]) -> zarr.Group:
    """Open a zarr store."""
    return zarr.open_group(path, mode=mode, use_consolidated=False)  # which would not show what is being written


def _lazy(element: Any) -> Any:
    if isinstance(element, h5py.Dataset | zarr.Array):
        return element
    check_stored_sparse(element)
    return ad.io.sparse_dataset(element)
