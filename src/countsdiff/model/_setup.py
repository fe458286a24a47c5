"""Registering data with scvi-tools: which matrices and columns hold what."""

import inspect
from collections.abc import Callable, Iterable

import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.data.fields import (
    CategoricalJointObsField,
    LayerField,
    MuDataCategoricalJointObsField,
    MuDataNumericalObsField,
    NumericalObsField,
)
from scvi.utils import setup_anndata_dsp

from countsdiff.counts import as_row_access, check_boolean, check_counts
from countsdiff.layers import become_actual, by_name, get_layer, warn_of_view
from countsdiff.model._base import CellModel
from countsdiff.model._data import (
    KEYS,
    CategoryField,
    MuDataCategoryField,
    MuDataNumbersField,
    NumbersField,
    OptionalLayerField,
    check_columns,
)
from countsdiff.model._modalities import JointCountsField, present_field

_OF_SCVI = ("source_registry", "extend_categories", "allow_missing_labels")


class RegisteredModel(CellModel):
    """Set-up of AnnData and MuData."""

    @classmethod
    @setup_anndata_dsp.dedent
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        missing_layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        **kwargs,
    ) -> None:
        """%(summary)s.

        Parameters
        ----------
        %(param_adata)s
        layer
            Layer with the raw counts; ``None``, or ``"X"``, for ``X``, whatever layers there are. NaN marks a missing
            entry.
        missing_layer
            Boolean layer, True where an entry is missing: its value is ignored, in training and in prediction.
        %(param_batch_key)s
        %(param_labels_key)s
        size_factor_key
            Column of ``adata.obs`` with external size factors (from spike-ins, say). The model still estimates size
            factors from the entries it sees; the logarithm of this column is used as an additional continuous
            covariate.
        categorical_covariate_keys
            Columns of ``adata.obs`` with further categories of which counts depend, such as donor, treatment or sex;
            every cell needs a value.
        continuous_covariate_keys
            Columns of ``adata.obs`` with numbers of which counts depend, such as age or time; NaN where unknown. Those
            more than five standard deviations from the mean of training are taken for five away, and a column that is
            the same in all cells of training is unknown.
        **kwargs
            For scvi-tools, which sets up query data like a reference.

        Raises
        ------
        ValueError
            If a count is negative, infinite or not whole, gene names repeat, or the data are empty.
        KeyError
            If a layer or a column of ``adata.obs`` does not exist.
        TypeError
            If there is no such argument, or data are not AnnData.
        """
        _check_passed_on(kwargs, cls.setup_anndata)
        if not isinstance(adata, AnnData):
            other = " (MuData is set up by setup_mudata)" if isinstance(adata, MuData) else ""
            raise TypeError(f"setup_anndata takes AnnData; got {type(adata).__name__}{other}.")
        if adata.is_view:
            warn_of_view(stacklevel=3)
            become_actual(adata)
        if pd.api.types.is_numeric_dtype(adata.var_names):
            adata.var_names = adata.var_names.astype(str)  # as anndata does with those that it is made with
        cls._tell_apart(adata)
        layer = by_name(adata, layer)
        categorical_covariate_keys = _as_list(categorical_covariate_keys)
        continuous_covariate_keys = _as_list(continuous_covariate_keys)
        setup_method_args = cls._get_setup_method_args(**locals())
        if layer is not None and layer == missing_layer:
            raise ValueError(f"layer and missing_layer are both {layer!r}: counts cannot be the marks of missing ones.")
        check_counts(adata, layer)
        transferring = "source_registry" in kwargs  # query data may lack the marks of missing entries
        if missing_layer is not None and not (transferring and missing_layer not in adata.layers):
            check_boolean(as_row_access(get_layer(adata, missing_layer)), f"adata.layers[{missing_layer!r}]")
        check_columns(adata, setup_method_args["setup_args"])
        fields = [
            # counts were checked in full above; scvi-tools looks at twenty entries, and only warns
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
            CategoryField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            CategoryField(REGISTRY_KEYS.LABELS_KEY, labels_key),
            CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
            NumbersField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
            NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
        ]
        if missing_layer is not None:
            fields.append(OptionalLayerField(KEYS.MISSING, missing_layer, is_count_data=False))
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        layers: dict[str, str | None] | list[str] | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        **kwargs,
    ) -> None:
        """Register counts of several modalities, to be modelled together.

        Each modality has a size factor of its own: how deeply a cell's proteins were counted says nothing of its RNA.
        Cells may lack modalities; all of their entries are missing then, and get imputed.

        Parameters
        ----------
        mdata
            Annotated counts.
        layers
            Dictionary of the modalities to model, each with the layer of its raw counts, or None for ``X``; or a list
            of modalities whose counts are in ``X``. NaN marks a missing entry. Default: all modalities, ``X``.
        batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
            Columns of ``mdata.obs``, as for :meth:`setup_anndata`.
        **kwargs
            For scvi-tools, which sets up query data like a reference.

        Raises
        ------
        ValueError
            If a count is negative, infinite or not whole, names repeat, or there is no modality.
        KeyError
            If a modality, a layer or a column of ``mdata.obs`` does not exist.

        Notes
        -----
        Adds the joint counts to ``mdata.obsm``, sparse: the memory of the counts is needed twice.

        Examples
        --------
        >>> CountsDiffImputer.setup_mudata(mdata, layers={"rna": "counts", "prot": None})
        >>> model = CountsDiffImputer(mdata)
        >>> model.train()
        >>> model.impute()
        >>> "imputed" in mdata["prot"].layers
        True
        """
        _check_passed_on(kwargs, cls.setup_mudata)
        if not isinstance(mdata, MuData):
            other = "; use setup_anndata" if isinstance(mdata, AnnData) else ""
            raise TypeError(f"setup_mudata takes MuData; got {type(mdata).__name__}{other}.")
        if mdata.is_view:
            raise ValueError("These data are a view, which cannot be registered: setup_mudata takes mdata.copy().")
        if mdata.axis != 0:
            raise ValueError(
                "setup_mudata takes modalities of the same cells (axis=0); those of these data share genes: join "
                "them as AnnData, with a batch for each."
            )
        cls._tell_apart(mdata)
        if not isinstance(layers, dict):  # names of modalities alone
            layers = dict.fromkeys(_as_list(layers) or mdata.mod)
        if not layers:
            raise ValueError(f"layers names no modality; there are {list(mdata.mod)}.")
        layers = {name: by_name(mdata.mod[name], at) if name in mdata.mod else at for name, at in layers.items()}
        categorical_covariate_keys = _as_list(categorical_covariate_keys)
        continuous_covariate_keys = _as_list(continuous_covariate_keys)
        setup_method_args = cls._get_setup_method_args(**locals())
        check_columns(mdata, setup_method_args["setup_args"])
        fields = [
            JointCountsField(layers),
            present_field(),
            MuDataCategoryField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            MuDataCategoryField(REGISTRY_KEYS.LABELS_KEY, labels_key),
            MuDataCategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
            MuDataNumbersField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
            MuDataNumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
        ]
        checks = AnnDataManagerValidationCheck(check_fully_paired_mudata=False)
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args, validation_checks=checks)
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def _tell_apart(cls, data: AnnData | MuData) -> None:
        """Take from a copy the name that its original is registered by, which scvi-tools would give to the copy."""
        manager = cls._setup_adata_manager_store.get(data.uns.get("_scvi_uuid"))
        if manager is not None and manager.adata is not data and not data.is_view:
            del data.uns["_scvi_uuid"]


def _check_passed_on(arguments: Iterable[str], function: Callable[..., None]) -> None:
    """Check that further arguments of a set-up are scvi-tools' own."""
    for name in arguments:
        if name not in _OF_SCVI:
            known = [parameter for parameter in inspect.signature(function).parameters if parameter != "kwargs"]
            raise TypeError(f"{function.__name__}() has no argument {name!r}; it has {', '.join(known)}.")


def _as_list(names: str | Iterable[str] | None) -> list[str] | None:
    """Names as they are saved with the model, each once; one may come without a list."""
    return None if names is None else [names] if isinstance(names, str) else list(dict.fromkeys(map(str, names)))
