"""The class users meet."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.model.base import UnsupervisedTrainingMixin

from countsdiff.core.denoiser import HeadName
from countsdiff.core.schedule import Spacing
from countsdiff.model._calibration import calibrate
from countsdiff.model._data import default_layer
from countsdiff.model._differential import DifferentialModel
from countsdiff.model._expression import ExpressionModel
from countsdiff.model._generate import GenerativeModel
from countsdiff.model._inference import PredictiveModel
from countsdiff.model._loading import CellSplitter
from countsdiff.model._module import CountsDiffModule
from countsdiff.model._plan import CountsDiffTrainingPlan, KeepBest
from countsdiff.model._report import ReportingModel
from countsdiff.model._saving import SavedModel
from countsdiff.model._setup import RegisteredModel
from countsdiff.model._statistics import gene_statistics
from countsdiff.model._transfer import TransferableModel
from countsdiff.nn import BackboneName

_VALIDATE_EVERY = 100  # steps
_MAX_CALIBRATION = 2_000_000  # entries of evenly spaced cells, but a hundred cells at least


class CountsDiffImputer(
    SavedModel,
    RegisteredModel,
    UnsupervisedTrainingMixin,
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
        one, else ``X``.
    registry
        Registry of a saved model, instead of `adata`.
    head
        ``"gamma"`` (default), ``"rate"`` or ``"x0"``; see :class:`~countsdiff.core.denoiser.Denoiser`.
    schedule
        Survival schedule by name: ``"cosine"``, ``"linear"``, ``"logit_linear"``, ``"blackout"`` or ``"jump"``.
    weight
        Loss weight: ``"elbo"``, ``"paper"`` or ``"unit"``.
    spacing
        Draw noise levels in training uniformly in survival probability (``"p"``) or in time (``"t"``, the paper).
    backbone
        ``"mlp"`` (default), or ``"transformer"``, the paper's, which needs a GPU.
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
    >>> list(adata.layers)
    ['counts', 'imputed']

    Notes
    -----
    Counts stay counts: results are on the scale of the input, the cell's own depth included.
    """

    _module_cls = CountsDiffModule
    _training_plan_cls = CountsDiffTrainingPlan
    _data_splitter_cls = CellSplitter

    def __init__(
        self,
        adata: AnnData | None = None,
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
        if adata is not None and self._get_most_recent_anndata_manager(adata) is None:
            if isinstance(adata, MuData):
                raise ValueError("Set MuData up first, with CountsDiffImputer.setup_mudata(mdata, layers={...}).")
            self.setup_anndata(adata, layer=default_layer(adata))
        super().__init__(adata, registry)
        stats = self.summary_stats
        modalities = self._modalities()
        group_sizes = [stats.n_vars] if modalities is None else modalities.sizes
        buffers: dict[str, Any] = {} if adata is None else self._module_buffers(group_sizes)
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

    def train(
        self,
        max_steps: int | None = None,
        *,
        batch_size: int = 128,
        lr: float | None = None,
        weight_decay: float | None = None,
        share_hidden: float | None = None,
        early_stopping: bool = True,
        validation_size: float = 0.05,
        seed: int = 0,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        **trainer_kwargs,
    ) -> None:
        """Train the denoiser; the weights that predicted the validation cells best are kept.

        Parameters
        ----------
        max_steps
            Length of training in minibatches. Default: seven tenths of the number of cells, between 1,000 and 20,000.
        batch_size
            Cells per minibatch.
        lr, weight_decay
            Peak learning rate and decoupled weight decay of AdamW. Default: 0.002, and (3,300 / number of cells)³, at
            most 6, as what fits ten thousand cells well overfits one thousand; 0.0005 and 0 for a model that starts
            from a reference, see :meth:`load_query_data`.
        share_hidden
            Share of the observed entries to hide from every cell. Default: one drawn per cell, uniformly (and all of
            them in a tenth of the cells), which trains for every task. 1 trains an unconditional model, the paper's:
            best for generating cells, and what ``method="repaint"`` was made for.
        early_stopping
            Stop when twenty validations in a row, a hundred steps apart, brought no improvement.
        validation_size
            Share of the cells to validate on, at most 2,000 of them. 0 switches validation off.
        seed
            Seed of the split, the order of the cells and everything drawn.
        accelerator, devices
            As for :class:`lightning.pytorch.Trainer`.
        **trainer_kwargs
            Further arguments for :class:`scvi.train.Trainer`, for example ``precision="bf16-mixed"`` on a GPU,
            ``callbacks`` or ``enable_progress_bar=False``.

        Raises
        ------
        ValueError
            If a setting is out of range, or the loss is not a number.
        """
        if self.adata is None:
            raise ValueError("The model was loaded without data; give load(..., adata) the data to train on.")
        if not 0.0 <= validation_size < 1.0:
            raise ValueError(f"validation_size is a share of the cells in [0, 1); got {validation_size}.")
        if share_hidden is not None and not 0.0 < share_hidden <= 1.0:
            raise ValueError(f"share_hidden is a share of the entries in (0, 1]; got {share_hidden}.")
        n_obs = self.adata.n_obs
        if lr is None:
            lr = 5e-4 if self.starts_from_reference_ else 2e-3
        if weight_decay is None:
            weight_decay = 0.0 if self.starts_from_reference_ else min((3_300 / n_obs) ** 3, 6.0)
        max_steps = max_steps or min(max(7 * n_obs // 10, 1_000), 20_000)
        shuffled = np.random.default_rng(seed).permutation(n_obs)
        n_validation = min(int(validation_size * n_obs), 2_000)
        validation, training = np.sort(shuffled[:n_validation]), np.sort(shuffled[n_validation:])
        # an "epoch" is cut at a hundred steps, so that large data are validated as often as small
        steps_per_epoch = min(math.ceil(len(training) / batch_size), _VALIDATE_EVERY)
        max_epochs = math.ceil(max_steps / steps_per_epoch)
        callbacks = list(trainer_kwargs.pop("callbacks", []))
        settings: dict[str, Any] = {"gradient_clip_val": 1.0, "limit_train_batches": steps_per_epoch}
        if n_validation > 0:
            callbacks.append(KeepBest())
            settings |= {
                "check_val_every_n_epoch": max(1, round(_VALIDATE_EVERY / steps_per_epoch)),
                "early_stopping": early_stopping,
                "early_stopping_monitor": "validation_loss",
                "early_stopping_patience": 20,
            }
        self.module.set_calibration()
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            super().train(
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                batch_size=batch_size,
                datasplitter_kwargs={"external_indexing": [training, validation, np.array([], dtype=int)]},
                plan_kwargs={
                    "n_steps": max_epochs * steps_per_epoch,
                    "lr": lr,
                    "weight_decay": weight_decay,
                    "share_hidden": share_hidden,
                    "seed": seed,
                },
                callbacks=callbacks,
                **{**settings, **trainer_kwargs},
            )
            most = max(_MAX_CALIBRATION // self.summary_stats.n_vars, 100)
            known, held_out = (
                self._make_data_loader(self.adata, indices=cells[:: math.ceil(len(cells) / most) or 1])
                for cells in (training, validation)
            )
            calibrate(self.module, known, held_out, seed, share_hidden)

    def _module_buffers(self, group_sizes: list[int]) -> dict[str, torch.Tensor]:
        """Statistics of the training data that the module keeps."""
        stats = gene_statistics(self._reader(self.adata), group_sizes)
        buffers = {"mean": stats.mean, "dispersion": stats.dispersion}
        if REGISTRY_KEYS.CONT_COVS_KEY in self.adata_manager.data_registry:
            values = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.CONT_COVS_KEY), dtype=np.float64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a covariate that no cell has
                location, scale = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
            location, scale = np.nan_to_num(location), np.maximum(np.nan_to_num(scale, nan=1.0), 1e-6)
            buffers["continuous_location"] = torch.as_tensor(location, dtype=torch.float32)
            buffers["continuous_scale"] = torch.as_tensor(scale, dtype=torch.float32)
        return buffers

    def _n_cats_per_cov(self) -> list[int] | None:
        state = self.registry_["field_registries"].get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {})
        counts = state.get("n_cats_per_key")
        return None if counts is None else [int(n) for n in counts]
