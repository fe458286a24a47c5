"""The class users meet."""

import warnings
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS

from countsdiff.arguments import check_seed, check_whole, plain
from countsdiff.core.heads import HeadName
from countsdiff.core.schedule import Spacing
from countsdiff.counts import CellReader
from countsdiff.layers import default_layer
from countsdiff.model._covariates import covariates_are_current
from countsdiff.model._data import check_is_data
from countsdiff.model._differential import DifferentialModel
from countsdiff.model._expression import ExpressionModel
from countsdiff.model._generate import GenerativeModel
from countsdiff.model._inference import PredictiveModel
from countsdiff.model._module import CountsDiffModule
from countsdiff.model._report import ReportingModel
from countsdiff.model._saving import SavedModel
from countsdiff.model._setup import RegisteredModel
from countsdiff.model._statistics import absent_genes, gene_statistics
from countsdiff.model._training import TrainableModel
from countsdiff.model._transfer import TransferableModel
from countsdiff.nn import BackboneName


class CountsDiffImputer(
    SavedModel,
    RegisteredModel,
    TrainableModel,
    PredictiveModel,
    GenerativeModel,
    TransferableModel,
    ExpressionModel,
    DifferentialModel,
    ReportingModel,
):
    """CountsDiff for single-cell counts: impute, denoise and sample in integers.

    A diffusion model on the natural numbers (arXiv 2604.03779) whose forward process is binomial thinning. Trained by
    hiding entries at random, it predicts any entry from any others.

    Parameters
    ----------
    adata
        Data of raw counts. If :meth:`setup_anndata` was not called, the layer ``"counts"`` is registered if there is
        one, else ``X``; copies and subsets of registered data are registered as those are.
    registry
        Registry of a model whose weights and statistics are about to be taken over: for :meth:`load` and
        :meth:`load_query_data`.
    head
        ``"gamma"`` (default), ``"rate"`` or ``"x0"``; see :class:`~countsdiff.core.denoiser.Denoiser`.
    schedule
        Survival schedule by name: ``"cosine"``, ``"linear"``, ``"logit_linear"``, ``"blackout"`` or ``"jump"``.
    weight
        Loss weight: ``"elbo"``, ``"paper"`` or ``"unit"``.
    spacing
        Draw noise levels in training uniformly in survival probability (``"p"``) or in time (``"t"``, the paper).
    backbone
        ``"mlp"`` (default), or ``"transformer"``, the paper's, which is meant for a GPU.
    width, depth, dropout
        Size of the network. Default: see :class:`~countsdiff.nn.GeneMLP` and :class:`~countsdiff.nn.GeneTransformer`.
    seed
        Seed of the initial weights.

    Examples
    --------
    >>> import countsdiff
    >>> adata = countsdiff.datasets.pbmc3k()
    >>> model = countsdiff.CountsDiffImputer(adata)
    >>> model.train()
    >>> model.impute()
    >>> "imputed" in adata.layers
    True

    Notes
    -----
    Counts stay counts: results are on the scale of the input, the cell's own depth included.
    """

    _module_cls = CountsDiffModule

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict | None = None,
        *,
        head: HeadName = "gamma",
        schedule: str = "cosine",
        weight: str = "elbo",
        spacing: Spacing = "p",
        backbone: BackboneName = "mlp",
        width: int | None = None,
        depth: int | None = None,
        dropout: float | None = None,
        seed: int = 0,
    ):
        for name, value in (("schedule", schedule), ("weight", weight)):
            if not isinstance(value, str):
                raise TypeError(
                    f"{name} is a name, which can be saved; got {value!r}. Functions go to core.TimeSampler, see "
                    "'Extending' in the documentation."
                )
        seed = check_seed(seed)
        width, depth, dropout = map(plain, (width, depth, dropout))
        check_whole(1, **{name: size for name, size in (("width", width), ("depth", depth)) if size is not None})
        if adata is not None:
            self._set_up(adata)
        super().__init__(adata, registry)
        stats = self.summary_stats
        group_sizes = self._layout().sizes
        # with a registry comes another model, and what was known of its training data with the weights
        buffers = {} if adata is None or registry is not None else self._module_buffers(group_sizes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = self._module_cls(
                stats.n_vars,
                n_batch=stats.get("n_batch", 1),
                n_labels=stats.get("n_labels", 1),
                n_continuous_cov=stats.get("n_extra_continuous_covs", 0),
                n_cats_per_cov=self._n_cats_per_cov(),
                head=head,
                schedule=schedule,
                weight=weight,
                spacing=spacing,
                backbone=backbone,
                width=width,
                depth=depth,
                dropout=dropout,
                group_sizes=group_sizes,
                has_size_factor=self._setup_args().get("size_factor_key") is not None,
                **buffers,
            )
        n_parameters = sum(p.numel() for p in self.module.denoiser.parameters())
        self._model_summary_string = (
            f"CountsDiffImputer: {stats.n_vars} genes, head {head}, schedule {schedule}, "
            f"{type(self.module.denoiser.backbone).__name__}, {n_parameters:,} parameters"
        )
        if adata is not None:
            self.design_ = self._design()
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def _set_up(cls, adata: AnnData | MuData) -> None:
        """Register data that were not: copies of registered data as those are, others by default."""
        check_is_data(adata)
        manager = cls._setup_adata_manager_store.get(adata.uns.get("_scvi_uuid"))
        if manager is None and isinstance(adata, MuData):
            raise ValueError("Set MuData up first, with CountsDiffImputer.setup_mudata(mdata, layers={...}).")
        if manager is None:
            cls.setup_anndata(adata, layer=default_layer(adata))
        elif manager.adata is not adata or not covariates_are_current(manager):
            method = manager.registry["setup_method_name"]
            try:
                getattr(cls, method)(adata, **manager.registry["setup_args"])
            except KeyError as error:
                raise KeyError(
                    f"{error.args[0]} These are a copy of data set up with it; call {method} anew."
                ) from error

    def _warn_of_absent_genes(self, reader: CellReader, group_sizes: list[int]) -> None:
        """Warn of genes that a batch does not seem to have measured, where their zeros pass for counts."""
        mapping = self._state(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        if len(mapping) < 2:
            return
        batches = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()
        found = absent_genes(reader, batches, group_sizes)
        if found:
            batch, genes = max(found.items(), key=lambda item: len(item[1]))
            others = f" (and {len(found) - 1} other batches lack some)" if len(found) > 1 else ""
            warnings.warn(
                f"{len(genes)} genes, such as {self.get_var_names(True)[genes[0]]!r}, have no count in batch "
                f"{plain(mapping[batch])!r}, and many in others{others}. If they were not measured there, their zeros "
                "are no counts: join tables by anndata.concat(..., join='outer', fill_value=numpy.nan).",
                stacklevel=4,
            )

    def _module_buffers(self, group_sizes: list[int]) -> dict[str, Any]:
        """Statistics of the training data that the module keeps."""
        reader = self._reader(self.adata)  # once: MuData are joined for it
        self._warn_of_absent_genes(reader, group_sizes)
        buffers: dict[str, Any] = {"statistics": gene_statistics(reader, group_sizes)}
        if REGISTRY_KEYS.CONT_COVS_KEY in self.adata_manager.data_registry:
            values = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.CONT_COVS_KEY), dtype=np.float64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a covariate that no cell has
                location, scale = np.nan_to_num(np.nanmean(values, axis=0)), np.nanstd(values, axis=0)
                varies = np.nanmax(values, axis=0) > np.nanmin(values, axis=0)
            scale = np.where(varies, scale, np.inf)
            buffers["continuous_location"] = torch.as_tensor(location, dtype=torch.float32)
            buffers["continuous_scale"] = torch.as_tensor(scale, dtype=torch.float32)
        return buffers

    def _n_cats_per_cov(self) -> list[int] | None:
        state = self.registry_["field_registries"].get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {})
        counts = state.get("n_cats_per_key")
        return None if counts is None else [int(n) for n in counts]
