import inspect
from collections.abc import Callable
from typing import Any

from anndata import AnnData

from countsdiff.counts import by_position
from countsdiff.layers import borrow


def impute(adata: AnnData, layer: str | None = "counts", key_added: str = "imputed", **kwargs: Any) -> None:
    """Impute counts in one call: set up, train, and write the result to a layer.

    Parameters
    ----------
    adata
        Annotated raw counts, ``(n_obs, n_vars)``. Only ``layers[key_added]`` (and what else ``impute`` adds under that
        name) and ``uns["countsdiff"]`` are written.
    layer
        Layer with the counts; None for ``X``. Without a layer ``"counts"``, the default is ``X`` too.
    key_added
        Layer to write.
    **kwargs
        Arguments of :class:`~countsdiff.CountsDiffImputer` and its methods ``setup_anndata`` (``missing_layer``,
        ``batch_key``, ``labels_key``, …), ``train`` (``max_steps``, ``batch_size``, ``accelerator``, …, and those of
        :class:`lightning.pytorch.Trainer`) and ``impute`` (``output``, ``n_samples``, …), told apart by their names.
        ``seed`` goes to all of them. Entries that ``missing`` marks are not looked at in training either.

    Raises
    ------
    TypeError
        If no step has an argument of that name, or the data are no AnnData.
    ValueError
        If both ``missing`` and ``missing_layer`` say which entries are missing, or the counts are no counts.
    KeyError
        If a layer or a column of ``adata.obs`` does not exist.

    Examples
    --------
    >>> import countsdiff
    >>> adata = countsdiff.datasets.pbmc3k()
    >>> countsdiff.pp.impute(adata, labels_key="cell_type")
    >>> "imputed" in adata.layers
    True
    """
    from lightning.pytorch import Trainer

    from countsdiff.model import CountsDiffImputer  # takes seconds, and nothing else in pp needs it
    from countsdiff.model.write import write_layers

    if not isinstance(adata, AnnData):
        raise TypeError(f"pp.impute takes AnnData; got {type(adata).__name__} (of MuData see setup_mudata).")
    setup, build, train, predict = _route(
        kwargs,
        [CountsDiffImputer.setup_anndata],
        [CountsDiffImputer],
        [CountsDiffImputer.train, Trainer],
        [CountsDiffImputer.impute],
    )
    work = borrow(adata)
    if "missing" in predict and not _is_rule(predict["missing"], adata):
        if setup.get("missing_layer") is not None:
            raise ValueError(f"give either missing or missing_layer; got missing_layer={setup['missing_layer']!r} too")
        missing = predict["missing"]
        if not isinstance(missing, str):
            missing = by_position(missing, adata)
            if missing.shape != adata.shape:
                raise ValueError(f"missing has shape {missing.shape}, but adata has shape {adata.shape}")
            predict["missing"] = "missing entries"
            work.layers["missing entries"] = missing
        # training must not see them; and these are imputed, be there none, rather than the zeros
        setup["missing_layer"] = predict["missing"]
    layer = None if layer == "counts" and layer not in work.layers else layer
    CountsDiffImputer.setup_anndata(work, layer=layer, **setup)
    try:
        model = CountsDiffImputer(work, **build)
        model._check_impute(key_added, **predict)  # a wrong option is an error now, not after minutes of training
        model.train(**train)
        model.impute(key_added=key_added, **predict)
    finally:
        CountsDiffImputer._release(work)  # scvi-tools would keep it for good
    record = work.uns["countsdiff"][key_added]
    write_layers(adata, key_added, {name: work.layers[name] for name in record["layers"]}, record)


def _is_rule(missing: Any, adata: AnnData) -> bool:
    """Whether `missing` is for the model to make sense of, as "zeros" or "all", rather than a layer or a matrix."""
    from countsdiff.model.missing import RULES

    return missing is None or (isinstance(missing, str) and (missing in RULES or missing not in adata.layers))


def _route(kwargs: dict[str, Any], *steps: list[Callable[..., Any]]) -> list[dict[str, Any]]:
    """Give each argument to the first step that knows its name, and ``seed`` to all that do."""
    reserved = {"self", "adata", "layer", "key_added", "inplace", "registry", "kwargs", "trainer_kwargs"}
    known = [{name for call in calls for name in inspect.signature(call).parameters} - reserved for calls in steps]
    unknown = sorted(set(kwargs) - set().union(*known))
    if unknown:
        if unknown[0] in ("copy", "inplace"):
            raise TypeError(
                f"impute() has no argument {unknown[0]!r}: it adds a layer; give it adata.copy() to add none."
            )
        raise TypeError(
            f"impute() has no argument {', '.join(map(repr, unknown))}; see setup_anndata, train and impute of "
            "CountsDiffImputer for those there are"
        )
    owner = {name: next(i for i, names in enumerate(known) if name in names) for name in kwargs}
    return [
        {name: value for name, value in kwargs.items() if owner[name] == i or (name == "seed" and name in names)}
        for i, names in enumerate(known)
    ]
