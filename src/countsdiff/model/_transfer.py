"""A trained model on other data: new batches, other genes, fewer modalities."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse

from countsdiff.counts import as_row_access, check_unique, is_on_disk, read_rows
from countsdiff.layers import get_layer
from countsdiff.model._base import CellModel
from countsdiff.model._calibration import adapt
from countsdiff.model._data import covariate_columns

logger = logging.getLogger("countsdiff")

UNKNOWN = "unknown"  # category of cells of which a covariate is not known


class TransferableModel(CellModel):
    """Models of query data that start from a reference."""

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | MuData,
        reference_model: "str | Path | TransferableModel",
        *,
        adapt_means: bool = True,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Take a trained model to other data; it imputes them at once, and better after some further training.

        Parameters
        ----------
        adata
            Query data, with counts and covariates where those of the reference are: MuData for a reference of several
            modalities, of which they need one. Genes may come in any order. Those that are absent are entries missing
            in every cell, and get imputed; those the reference does not know are left out. See
            :meth:`prepare_query_anndata` and :meth:`prepare_query_mudata`.
        reference_model
            Trained model, or the directory it was saved to.
        adapt_means
            Whether to adapt the mean of every gene to the query, since another chemistry captures genes with different
            efficiencies. Otherwise the reference predicts the query's cells as if they were its own. Has to be
            ``False`` for a reference trained with ``share_hidden=1``, which has never predicted counts given others.
        accelerator, device
            Where to load a saved model, as in :meth:`load`.

        Returns
        -------
        A model of the query data, which are ``model.adata``: `adata` itself if it has just the genes and covariates of
        the reference, else a copy that does.

        Notes
        -----
        Means are adapted by letting the reference predict the observed counts of the query, three times, not by
        comparing mean counts: a query of T cells alone is not mistaken for another chemistry. Evenly spaced cells are
        used, as many as hold two million entries, but at least five hundred. Genes with few counts in the query keep
        their means.

        A new category of a covariate starts with the embedding of "unknown", which stands for all categories;
        :meth:`train` gives it an embedding of its own. Unlike in scArches nothing is frozen, since no part of the
        network is specific to batches. Instead training starts with a smaller learning rate, and without weight decay,
        which would make the network forget genes that the query lacks.

        Raises
        ------
        ValueError
            If the data share no gene with the reference, or are no counts; if a category is a number where that of the
            reference is text, or the other way round; or if means are to be adapted by a reference trained with
            ``share_hidden=1``.
        TypeError
            If they are AnnData and the reference is a model of MuData, or the other way round.
        KeyError
            If MuData have none of the modalities of the reference.
        RuntimeError
            If the reference is not trained.

        Examples
        --------
        >>> model = countsdiff.CountsDiffImputer.load_query_data(query, "reference_model")
        >>> model.impute()  # zero-shot
        >>> model.train(max_steps=300)
        >>> model.impute()
        >>> "imputed" in model.adata.layers
        True
        """
        reference = cls._reference(reference_model, accelerator, device)
        reference._check_if_trained(warn=False)
        if adapt_means and reference.share_hidden_ == 1.0:
            raise ValueError(
                "The reference was trained with share_hidden=1, and has never predicted counts given others, which "
                "adapting means takes; give adapt_means=False."
            )
        prepare = cls.prepare_query_anndata if reference._modalities() is None else cls.prepare_query_mudata
        query = prepare(adata, reference)
        _check_kinds(query, reference)
        set_up = getattr(cls, reference.registry_["setup_method_name"])
        registered = {"source_registry": reference.registry_, "extend_categories": True, "allow_missing_labels": True}
        set_up(query, **registered, **reference._setup_args())
        # with a registry, as on loading: the reference's statistics replace the query's, which need not be computed
        model = cls(query, registry=reference.registry_, **reference.init_params_["non_kwargs"])
        model.module.adopt(reference.module)
        model.to_device(reference.device)
        model.module.eval()
        if adapt_means:
            # R² from pbmc3k to cite_pbmc10k, 1,000 genes: .780 by 100 cells, .819 by 250, .823 by 500, .827 by 2,000
            adapt(model.module, model._spread(np.arange(query.n_obs), at_least=500))
        model.starts_from_reference_ = model.is_trained_ = True
        model.learned_from_data_, model.share_hidden_ = adapt_means, reference.share_hidden_
        return model

    @classmethod
    def prepare_query_anndata(cls, adata: AnnData, reference_model: "str | Path | TransferableModel") -> AnnData:
        """Data with the genes and covariates of a reference, in its order.

        Genes that `adata` lacks are NaN, that is missing, in all cells, which takes eight bytes a cell and gene; genes
        that the reference does not know are left out. Categorical covariates that `adata` lacks become ``"unknown"``,
        continuous ones NaN.

        Parameters
        ----------
        adata, reference_model
            As for :meth:`load_query_data`.

        Returns
        -------
        `adata` itself where nothing has to be done, else a new AnnData with the counts, ``obs``, ``obsm`` and ``uns``.

        Raises
        ------
        ValueError
            If the data share no gene with the reference.
        """
        if not isinstance(adata, AnnData):
            raise TypeError(f"The reference is a model of AnnData; got {type(adata).__name__}.")
        reference = cls._reference(reference_model)
        args = reference._setup_args()
        names = pd.Index(reference.get_var_names())
        missing_columns = _missing_columns(adata, args)
        positions = _positions(adata, names, "The data")
        marked = args["missing_layer"] is None or args["missing_layer"] in adata.layers
        reference._warn_without_marks(adata)
        if _in_order(positions, adata) and not missing_columns and marked:
            return adata
        query = _take_variables(adata, names, positions, args["layer"], args["missing_layer"])
        query.obs = query.obs.assign(**missing_columns)
        return query

    @classmethod
    def prepare_query_mudata(cls, mdata: MuData, reference_model: "str | Path | TransferableModel") -> MuData:
        """Data with the variables and covariates of a reference of several modalities, in its order.

        Variables that a modality lacks and columns that ``mdata.obs`` lacks are treated as by
        :meth:`prepare_query_anndata`. Whole modalities may be absent, and modalities that the reference does not know
        stay as they are.

        Parameters
        ----------
        mdata, reference_model
            As for :meth:`load_query_data`.

        Returns
        -------
        `mdata` itself where nothing has to be done, else a new MuData, with ``obs``, ``obsm`` and ``uns`` of `mdata`.

        Raises
        ------
        ValueError
            If a modality shares no variable with that of the reference.
        """
        if not isinstance(mdata, MuData):
            raise TypeError(f"The reference is a model of MuData; got {type(mdata).__name__}.")
        reference = cls._reference(reference_model)
        args, known = reference._setup_args(), reference.get_var_names()
        missing_columns = _missing_columns(mdata, args)
        changed = {}
        for name in [name for name in args["layers"] if name in mdata.mod]:
            table, names = mdata.mod[name], pd.Index(known[name])
            positions = _positions(table, names, f"mdata[{name!r}]")
            if not _in_order(positions, table):
                changed[name] = _take_variables(table, names, positions, args["layers"][name])
        if not changed and not missing_columns:
            return mdata
        query = MuData({name: changed.get(name, table) for name, table in mdata.mod.items()})
        if not query.obs_names.equals(mdata.obs_names):
            query = query[mdata.obs_names].copy()
        for column, values in mdata.obs.assign(**missing_columns).items():
            query.obs[column] = values
        query.uns.update(_unregistered(mdata.uns))
        query.obsm.update({key: value for key, value in _unregistered(mdata.obsm).items() if key not in query.obsm})
        return query

    @classmethod
    def _reference(
        cls, model: "str | Path | TransferableModel", accelerator: str = "auto", device: int | str = "auto"
    ) -> Self:
        if isinstance(model, cls):
            return model
        loaded: Self = cls.load(model, adata=False, accelerator=accelerator, device=device)
        return loaded


def _check_kinds(query: AnnData | MuData, reference: CellModel) -> None:
    """Check that categories do not look like those of a reference and yet are new, as the number 1 beside "1"."""
    for column, known in reference._known_categories().items():
        by_name = {str(category): category for category in known.tolist()}
        for category in pd.Index(query.obs[column].unique()).tolist():
            twin = by_name.get(str(category), category)
            if twin != category:
                raise ValueError(
                    f"adata.obs[{column!r}] has {category!r}, the reference {twin!r}: make them alike, such as by "
                    f"adata.obs[{column!r}].astype({'str' if isinstance(twin, str) else type(twin).__name__})."
                )


def _missing_columns(adata: AnnData | MuData, setup_args: dict[str, Any]) -> dict[str, Any]:
    """Registered columns that ``adata.obs`` lacks, with the values of cells of which nothing is known."""
    missing = {
        column: value
        for columns, value in zip(covariate_columns(setup_args), (UNKNOWN, np.nan), strict=True)
        for column in columns
        if column not in adata.obs
    }
    if missing:
        warnings.warn(f"adata.obs lacks {list(missing)}: taken for unknown in all cells.", stacklevel=3)
    return missing


def _positions(table: AnnData, names: pd.Index, what: str) -> NDArray[np.intp]:
    """Where the variables of the reference are in a table, negative where they are not."""
    check_unique(table.var_names, "gene")
    positions = table.var_names.get_indexer(names)
    n_absent = int((positions < 0).sum())
    if n_absent == len(names):
        raise ValueError(
            f"{what} share none of the {len(names)} genes of the reference, such as {str(names[0])!r}; they have "
            f"genes such as {str(table.var_names[0])!r}. Are they named alike, or cells and genes swapped?"
        )
    n_extra = table.n_vars - (len(names) - n_absent)
    if n_extra > 0:
        warnings.warn(
            f"{n_extra} of the {table.n_vars} genes are unknown to the reference, and left out.", stacklevel=3
        )
    if n_absent > 0:
        logger.info("%d of the %d genes of the reference are missing.", n_absent, len(names))
    return positions


def _in_order(positions: NDArray[np.intp], table: AnnData) -> bool:
    """Whether the variables of a table are those of the reference, in its order."""
    return len(positions) == table.n_vars and bool((positions == np.arange(table.n_vars)).all())


def _take_variables(
    table: AnnData, names: pd.Index, positions: NDArray[np.intp], layer: str | None, missing_layer: str | None = None
) -> AnnData:
    """Counts, and marks of missing ones, of these variables; NaN where absent."""
    counts = _take_columns(get_layer(table, layer), positions, np.nan)
    layers = {} if layer is None else {layer: counts}
    if missing_layer is not None:
        marks = table.layers.get(missing_layer, sparse.csr_matrix(table.shape, dtype=bool))
        layers[missing_layer] = _take_columns(marks, positions, 0.0).astype(bool)
    return AnnData(
        counts if layer is None else None,
        obs=table.obs,
        var=pd.DataFrame(index=names),
        obsm=dict(table.obsm),
        uns=_unregistered(table.uns),
        layers=layers,
    )


def _unregistered(entries: Mapping[str, Any]) -> dict[str, Any]:
    """What data hold by name, but for their registration, which belongs to them."""
    return {key: value for key, value in entries.items() if not key.startswith(("_scvi", "_countsdiff"))}


def _take_columns(matrix: Any, positions: NDArray[np.intp], absent: float) -> Any:
    """Columns of a matrix as float32, in memory, filled with `absent` where the position is negative."""
    there = positions >= 0
    if is_on_disk(matrix):
        matrix = read_rows(as_row_access(matrix), np.arange(matrix.shape[0]))
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
        taken = np.full((matrix.shape[0], len(positions)), absent, dtype=np.float32)
        taken[:, there] = matrix[:, positions[there]]
        return taken
    found = sparse.csr_matrix(as_row_access(matrix)[:, positions[there]], dtype=np.float32)
    if there.all():
        return found
    n_obs, n_absent = matrix.shape[0], int((~there).sum())
    filled = sparse.csr_matrix((n_obs, n_absent), dtype=np.float32)
    if absent != 0.0:  # every entry stored
        rows = np.arange(n_obs + 1, dtype=np.int64) * n_absent
        columns = np.tile(np.arange(n_absent, dtype=np.int32), n_obs)
        filled = sparse.csr_matrix((np.full(n_obs * n_absent, absent, dtype=np.float32), columns, rows), filled.shape)
    order = np.argsort(np.concatenate([np.flatnonzero(there), np.flatnonzero(~there)]))
    return sparse.hstack([found, filled], format="csr", dtype=np.float32)[:, order]
