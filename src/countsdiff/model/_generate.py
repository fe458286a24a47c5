"""New cells from a trained model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse
from scvi import REGISTRY_KEYS
from torch import Tensor

from countsdiff.arguments import check_whole
from countsdiff.core.random import RowGenerator
from countsdiff.core.sampler import AttritionKind, BirthRule, SamplerConfig, SamplerState
from countsdiff.core.schedule import Spacing
from countsdiff.counts import CellReader
from countsdiff.model._base import CellModel
from countsdiff.model._data import covariate_columns, is_single, row_keys
from countsdiff.model._modalities import as_mudata
from countsdiff.model._predict import Cells
from countsdiff.model.missing import GENERATE
from countsdiff.model.request import Request
from countsdiff.model.write import Collector, collect, write_layers

_MAX_DESIGN = 10_000  # cells, evenly spaced
_DESIGN_STREAM = 2**20  # of random numbers, away from those of the counts


class GenerativeModel(CellModel):
    """Generation: every entry is noised, and nothing is known but the covariates."""

    design_: pd.DataFrame  # saved with the model

    def generate(
        self,
        n_cells: int,
        *,
        labels: Any = None,
        batch: Any = None,
        guidance_scale: float = 1.0,
        n_steps: int = 20,
        spacing: Spacing = "t",
        attrition: float = 0.0,
        attrition_kind: AttritionKind = "rescaled",
        births: BirthRule = "law",
        seed: int = 0,
        batch_size: int | None = None,
        callback: Callable[[SamplerState], None] | None = None,
    ) -> AnnData | MuData:
        """Draw new cells.

        Parameters
        ----------
        n_cells
            Number of cells.
        labels, batch
            A category of the registered ``labels_key`` or ``batch_key`` for all cells, or one for each. Covariates that
            are not given are taken, jointly, from random training cells that match those given.
        guidance_scale
            Weight of the covariates: 0 ignores them, 1 uses them as trained, above 1 exaggerates.
        n_steps, spacing
            Reverse steps, of equal survival probability (``"p"``) or equal time (``"t"``), which are small in p at the
            beginning, where the kind of cell is still open.
        attrition, attrition_kind, births
            How a draw steps, see :class:`~countsdiff.core.sampler.SamplerConfig`.
        seed
            Seed of the draw. Cell i depends on it and on its own covariates, not on how many cells are drawn.
        batch_size
            Cells drawn at a time; results do not depend on it.
        callback
            Called after every reverse step with a :class:`~countsdiff.core.sampler.SamplerState` of the cells that are
            drawn at once, the first 256 on a CPU, and so on; see :func:`countsdiff.pl.trajectory`.

        Returns
        -------
        AnnData, or MuData if the model was set up with that
            Whole numbers, CSR, in ``X`` and in the layer the model was trained on; the covariates in ``obs``, under
            the names they were registered by; how the cells were made in ``uns["countsdiff"]["generated"]``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If a category is unknown (the message lists the known ones), none are registered, or numbers do not fit.

        Examples
        --------
        >>> cells = model.generate(100, labels="B", guidance_scale=1.5)
        >>> cells.n_obs
        100
        """
        self._check_if_trained(warn=False)
        check_whole(1, n_cells=n_cells)
        sampler = SamplerConfig(n_steps, spacing, attrition, attrition_kind, births, self.module.times.schedule)
        request = Request("sample", sampler=sampler, seed=seed)
        wanted: dict[str, NDArray] = {}
        for key, argument, values in (
            (REGISTRY_KEYS.LABELS_KEY, "labels", labels),
            (REGISTRY_KEYS.BATCH_KEY, "batch", batch),
        ):
            if values is not None:
                chosen, column = self._categories(key, argument, values, n_cells), self._setup_args()[f"{key}_key"]
                if (wanted.setdefault(column, chosen) != chosen).any():
                    raise ValueError(f"labels and batch are one column, {column!r}, and differ; give one of them.")
        names = pd.Index([f"generated_{i}" for i in range(n_cells)])
        keys = row_keys(names)
        u = RowGenerator(seed, torch.as_tensor(keys), _DESIGN_STREAM).uniform().numpy()
        obs = _draw_rows(self.design_, wanted, u).set_index(names)
        shape = (n_cells, self.summary_stats.n_vars)
        nothing = CellReader(sparse.csr_matrix(shape, dtype=np.float32), np.broadcast_to(np.True_, shape))
        cells = Cells(nothing, keys, *self._covariates(obs))
        collector = Collector(1, as_sparse=True)
        answers = self._answers(cells, GENERATE, request, guidance_scale, batch_size=batch_size, callback=callback)
        collect(answers, collector)
        counts = sparse.csr_matrix(collector.matrices()[0])
        modalities, layers = self._modalities(), {}
        if modalities is not None:
            generated = as_mudata(counts, obs, modalities, self._setup_args()["layers"])
        else:
            generated = AnnData(counts, obs=obs, var=pd.DataFrame(index=np.asarray(self.get_var_names())))
            layers = {} if (layer := self._layer()) is None else {layer: counts.copy()}
        provenance = {"model": type(self).__name__, "guidance_scale": guidance_scale, **request.provenance()}
        write_layers(generated, "generated", layers, provenance)
        return generated

    def _categories(self, key: str, argument: str, values: Any, n_cells: int) -> NDArray:
        """One category for each cell, all of them known."""
        if self._setup_args().get(f"{key}_key") is None:
            raise ValueError(f"The model knows no {argument}: none were registered ({key}_key of setup_anndata).")
        chosen = np.asarray([values] * n_cells if is_single(values) else values, dtype=object)
        if chosen.shape != (n_cells,):
            raise ValueError(f"{argument} has {len(chosen)} values for {n_cells} cells; give one, or one for each.")
        known = self._seen_categories(key)
        unknown = pd.Index(chosen).difference(pd.Index(known, dtype=object))
        if len(unknown):
            raise ValueError(f"{argument} {unknown[0]!r} is unknown to the model; it knows {list(known)}.")
        return chosen

    def _design(self) -> pd.DataFrame:
        """Covariates of at most 10,000 training cells, and one of each category, as generated cells may have them."""
        categorical, numbers = covariate_columns(self._setup_args())
        rows = np.unique(np.linspace(0, self.adata.n_obs - 1, min(self.adata.n_obs, _MAX_DESIGN)).astype(np.intp))
        firsts = [np.flatnonzero(~self.adata.obs[column].duplicated()) for column in categorical]
        rows = np.unique(np.concatenate([rows, *firsts]))
        registered = list(dict.fromkeys([*categorical, *numbers]))  # one column may be both batch and label
        return self.adata.obs[registered].iloc[rows].reset_index(drop=True)

    def _covariates(self, obs: pd.DataFrame) -> tuple[Tensor, Tensor]:
        """Covariates of cells that are in no registered data, as the network takes them."""
        args = self._setup_args()

        def codes(column: str | None, known: NDArray) -> NDArray[np.int64]:
            return np.zeros(len(obs), int) if column is None else pd.Index(known).get_indexer(obs[column])

        tensors = {
            key: codes(args.get(f"{key}_key"), self._state(key)["categorical_mapping"])[:, None]
            for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)
        }
        if categorical := args.get("categorical_covariate_keys"):
            mappings = self._state(REGISTRY_KEYS.CAT_COVS_KEY)["mappings"]
            tensors[REGISTRY_KEYS.CAT_COVS_KEY] = np.stack([codes(c, mappings[c]) for c in categorical], axis=1)
        if continuous := args.get("continuous_covariate_keys"):
            tensors[REGISTRY_KEYS.CONT_COVS_KEY] = obs[continuous].to_numpy(np.float32)
        if size_factor := args.get("size_factor_key"):
            tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY] = obs[[size_factor]].to_numpy(np.float32)
        categories, continuous = self.module.covariates({k: torch.as_tensor(v) for k, v in tensors.items()})
        return categories.cpu(), continuous.cpu()


def _draw_rows(design: pd.DataFrame, wanted: dict[str, NDArray], u: NDArray[np.float32]) -> pd.DataFrame:
    """Rows of `design`, each picked by its u among those that have the wanted values, as far as there are any."""
    table = pd.DataFrame(wanted, index=range(len(u)))
    alike = table.groupby(list(wanted)).indices.values() if wanted else [slice(None)]
    rows = np.empty(len(u), dtype=np.intp)
    for cells in alike:
        fits = np.ones(len(design), dtype=bool)
        for column, values in wanted.items():
            narrower = fits & (design[column] == values[cells][0]).to_numpy()
            fits = narrower if narrower.any() else fits
        candidates = np.flatnonzero(fits)
        rows[cells] = candidates[(u[cells] * len(candidates)).astype(np.intp)]
    return design.iloc[rows].assign(**{name: _like(design[name], values) for name, values in wanted.items()})


def _like(column: pd.Series, values: NDArray) -> Any:
    """Values of the type of a column; if it is one of categories, with those that it lacks."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return pd.Categorical(values, column.cat.categories.union(pd.unique(values), sort=False))
    return pd.Series(values).astype(column.dtype).to_numpy()
