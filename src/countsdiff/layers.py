"""What an AnnData has by name: ``X`` and the layers, and the columns of ``obs``."""

import warnings
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from anndata import AnnData


def by_name(adata: AnnData, layer: str | None) -> str | None:
    """Return the name of a layer, or None for X, which is meant by "X", too, where no layer has that name."""
    return None if layer == "X" and "X" not in adata.layers else layer


def get_layer(adata: AnnData, layer: str | None):
    """Return X or a layer.

    Raises
    ------
    KeyError
        If there is no such layer; the message lists those there are.
    """
    layer = by_name(adata, layer)
    if layer is None:
        if adata.X is None:
            names = list(named_layers(adata))
            others = f"; name the layer with the counts, one of {names}" if names else ", and there are no layers"
            raise KeyError(f"adata.X is empty{others}.")
        return adata.X
    if layer not in adata.layers:
        raise KeyError(f"adata.layers has no {layer!r}; it has {list(named_layers(adata)) or 'no layers'}.")
    return adata.layers[layer]


def default_layer(adata: AnnData) -> str | None:
    """Where the counts are if nobody says: the layer "counts" if there is one, else X."""
    return "counts" if "counts" in adata.layers else None


def named_layers(adata: AnnData) -> dict[str, Any]:
    """Return the layers by name: without ``X``, which anndata counts among them, by the name None, from 0.13 on."""
    return {name: matrix for name, matrix in adata.layers.items() if name is not None}


def borrow(adata: AnnData) -> AnnData:
    """Return an AnnData with the same matrices, and tables of its own for scvi-tools to register in."""
    adata = adata.copy() if adata.is_view else adata  # matrices of a view are no arrays that torch knows
    return AnnData(
        adata.X,
        obs=adata.obs.copy(),
        var=adata.var[[]].copy(),
        layers=named_layers(adata),
        uns={key: adata.uns[key] for key in ("countsdiff",) if key in adata.uns},
    )


def check_not_part_on_disk(adata: AnnData) -> None:
    """Check that data are no view of data on disk, which cannot be registered, to be trained on or predicted.

    Raises
    ------
    ValueError
        If they are, with what to do.
    """
    if adata.is_view and adata.isbacked:
        raise ValueError("A part of data on disk cannot be registered; read it first: adata = adata.to_memory().")


def warn_of_view(stacklevel: int) -> None:
    """Warn of what is about to be written into a view; `stacklevel` counts from here."""
    warnings.warn(
        "These data are a view, and become a copy: what is written is there, not in the data that they are a part of. "
        "Keep a name for it, as in part = adata[cells].copy().",
        stacklevel=stacklevel,
    )


def become_actual(adata: AnnData) -> None:
    """Copy what a view shows into it, as anndata does when a view is written to; not one of data on disk."""
    check_not_part_on_disk(adata)
    adata._init_as_actual(adata.copy())  # as scanpy does


def outdated_layers(records: Mapping[str, Any], key: str, record: Mapping[str, Any]) -> list[str]:
    """Layers of the earlier result by the name `key` that the one of `record` does not have, nor any other."""
    others = {name for k, other in records.items() if k != key for name in other.get("layers", ())}
    return [name for name in records.get(key, {}).get("layers", ()) if name not in {*record["layers"], *others}]


def check_key(key_added: str) -> None:
    """Check that results can be written, and files with them read again, by the name `key_added`.

    Raises
    ------
    ValueError
        If it is empty, has a slash, or is "." or "..", or "X".
    """
    if not isinstance(key_added, str) or key_added in ("", ".", "..") or "/" in key_added:
        raise ValueError(f"key_added names a layer, without slashes, which part groups in a store; got {key_added!r}.")
    if key_added == "X":
        raise ValueError("key_added names a layer, and 'X' is the name of adata.X; choose another one.")


def check_not_read(names: Iterable[str], read: Iterable[str | None]) -> None:
    """Check that results will not overwrite what they are made from.

    Raises
    ------
    ValueError
        Naming the first of the layers to write, `names`, that is one of those that are `read`.
    """
    read = set(read)
    if overwritten := [name for name in names if name in read]:
        raise ValueError(
            f"The result would overwrite layers[{overwritten[0]!r}], which it is made from; choose another key_added."
        )


def require_columns(adata: AnnData, keys: Iterable[str | None], remedy: str = "") -> None:
    """Check that ``adata.obs`` has the named columns.

    Raises
    ------
    KeyError
        Naming the column that is absent, and those there are, and the `remedy` if there is one.
    TypeError
        If a name is a list, say.
    """
    for key in keys:
        if not isinstance(key, Hashable):
            raise TypeError(f"A column of adata.obs is given by its name; got {key!r}.")
        if key is not None and key not in adata.obs:
            there = list(adata.obs.columns) or "none"
            data = "adata" if isinstance(adata, AnnData) else "mdata"
            raise KeyError(f"{data}.obs has no column {key!r}; it has {there}.{remedy}")
