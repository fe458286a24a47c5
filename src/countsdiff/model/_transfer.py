"""A trained model on other data: new batches, other genes, fewer modalities."""

from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from countsdiff.model._base import CellModel
from countsdiff.model._calibration import adapt
from countsdiff.model._query import in_order, positions_of, take_variables, unknown_columns, unregistered


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
        missing_columns = unknown_columns(adata, args)
        positions = positions_of(adata, names, "The data")
        marked = args["missing_layer"] is None or args["missing_layer"] in adata.layers
        reference._warn_without_marks(adata)
        if in_order(positions, adata) and not missing_columns and marked:
            return adata
        query = take_variables(adata, names, positions, args["layer"], args["missing_layer"])
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
        missing_columns = unknown_columns(mdata, args)
        changed = {}
        for name in [name for name in args["layers"] if name in mdata.mod]:
            table, names = mdata.mod[name], pd.Index(known[name])
            positions = positions_of(table, names, f"mdata[{name!r}]")
            if not in_order(positions, table):
                changed[name] = take_variables(table, names, positions, args["layers"][name])
        if not changed and not missing_columns:
            return mdata
        query = MuData({name: changed.get(name, table) for name, table in mdata.mod.items()})
        if not query.obs_names.equals(mdata.obs_names):
            query = query[mdata.obs_names].copy()
        for column, values in mdata.obs.assign(**missing_columns).items():
            query.obs[column] = values
        query.uns.update(unregistered(mdata.uns))
        query.obsm.update({key: value for key, value in unregistered(mdata.obsm).items() if key not in query.obsm})
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
