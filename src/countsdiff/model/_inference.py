"""What a trained model does to data: impute, denoise, deepen."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal, get_args

from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray

from countsdiff.arguments import check_choice
from countsdiff.core.repaint import RepaintConfig
from countsdiff.core.sampler import AttritionKind, BirthRule, SamplerConfig
from countsdiff.core.schedule import Spacing
from countsdiff.model._base import CellModel
from countsdiff.model.missing import DEEPEN, DENOISE, Missing, resolve_missing
from countsdiff.model.request import Output, Request


class PredictiveModel(CellModel):
    """Imputation, denoising and virtual depth."""

    def impute(
        self,
        adata: AnnData | MuData | None = None,
        *,
        indices: Sequence[int] | None = None,
        missing: Missing = None,
        output: Output = "mean",
        n_samples: int = 1,
        n_steps: int = 20,
        guidance_scale: float = 1.0,
        attrition: float = 0.0,
        attrition_kind: AttritionKind = "rescaled",
        births: BirthRule = "law",
        spacing: Spacing = "p",
        method: Literal["conditional", "repaint"] = "conditional",
        n_resample: int = 3,
        jump: int = 5,
        key_added: str = "imputed",
        inplace: bool = True,
        seed: int = 0,
        batch_size: int | None = None,
        return_std: bool = False,
        interval: float | None = None,
    ) -> NDArray | dict[str, NDArray] | None:
        """Impute missing entries, or zeros if none is missing; all others come back as they are.

        Parameters
        ----------
        adata
            Data with the genes the model was trained on, in any order. Default: the training data.
        indices
            Cells to impute. With ``inplace=True`` the other cells keep their counts.
        missing
            What to impute. ``None``: the entries missing in the data (NaN, or marked by the registered
            ``missing_layer``) or, if there are none, the zeros. ``"zeros"``: zeros are replaced by their expected count
            given all counts of the cell, the zeros included. ``"all"``: the same for all entries. ``"label_zeros"``:
            zeros of genes seen in any cell of the same label, their values ignored (the paper's rule: it tells the
            model which entries are positive, and so imputes too much). The name of a boolean layer, or a boolean matrix
            ``(n_obs, n_vars)``: entries marked True, their values ignored. Entries that are missing in the data are
            always imputed.
        output
            ``"mean"`` minimises the squared error of counts, in one pass of the network; ``"median"`` the absolute
            error; ``"log_mean"`` the squared error after normalisation to 10,000 counts and log1p, among values that
            add up to the same depth; ``"sample"`` draws whole numbers, jointly for all missing entries of a cell.
        n_samples
            Number of draws for ``output="sample"``; more than one are written to ``{key_added}_0``,
            ``{key_added}_1``, …
        n_steps, spacing
            Reverse steps of a draw, of equal survival probability (``"p"``) or equal time on the schedule (``"t"``).
        guidance_scale
            Weight of the covariates: 0 ignores them, 1 uses them as trained, above 1 exaggerates.
        attrition, attrition_kind, births
            How a draw steps, see :class:`~countsdiff.core.sampler.SamplerConfig`.
        method
            ``"conditional"``: the network is given the known entries as evidence. ``"repaint"``: the paper's method, an
            unconditional draw that is overwritten with the known entries after every step; for ``output="sample"``.
        n_resample, jump
            Walks per window and steps per window of ``method="repaint"``, see
            :class:`~countsdiff.core.repaint.RepaintConfig`.
        key_added
            Layer to write, and name of the record in ``adata.uns["countsdiff"]``.
        inplace
            Write to `adata`, or return the result.
        seed
            Seed of the draws. A draw depends on the seed, the name of the cell and the cell's own data alone.
        batch_size
            Cells read at a time; results do not depend on it. The network takes 256 at a time (2,048 on a GPU).
        return_std
            Add ``{key_added}_std``, the standard deviation of the predictive distribution (0 of what is not rewritten).
        interval
            Least coverage of predictive intervals to add as ``{key_added}_lower`` and ``{key_added}_upper``: the
            shortest ones in whole counts. Of an entry that is 0 almost surely both are 0, and its mean lies above them.

        Returns
        -------
        ``None``, or the imputed matrix ``(n_obs, n_vars)``, several samples stacked first, with ``inplace=False``; a
        dictionary by layer name if standard deviations or intervals are asked for.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the genes, counts, or an argument do not fit; the message says which and what to do.

        Examples
        --------
        >>> model.impute(interval=0.9)  # layers imputed, imputed_lower and imputed_upper
        >>> model.impute(output="sample", n_samples=3, key_added="draw")  # layers draw_0, draw_1 and draw_2
        >>> model.adata.uns["countsdiff"]["draw"]["n_samples"]
        3
        >>> model.impute(indices=range(5), inplace=False).shape == (5, model.adata.n_vars)
        True
        """
        request = self._request(
            output=output,
            n_samples=n_samples,
            n_steps=n_steps,
            attrition=attrition,
            attrition_kind=attrition_kind,
            births=births,
            spacing=spacing,
            method=method,
            n_resample=n_resample,
            jump=jump,
            seed=seed,
            return_std=return_std,
            interval=interval,
        )
        return self._predict(adata, indices, missing, request, guidance_scale, key_added, inplace, batch_size)

    def denoise(
        self,
        adata: AnnData | MuData | None = None,
        *,
        indices: Sequence[int] | None = None,
        output: Output = "mean",
        depth: float = 1.0,
        n_samples: int = 1,
        guidance_scale: float = 1.0,
        key_added: str = "denoised",
        inplace: bool = True,
        seed: int = 0,
        batch_size: int | None = None,
        return_std: bool = False,
        interval: float | None = None,
    ) -> NDArray | dict[str, NDArray] | None:
        """Predict an independent replicate of every cell, given all of its counts.

        Parameters
        ----------
        depth
            Depth of the replicate relative to the cell's own: its mean is ``depth`` times the cell's estimated
            expression.
        key_added
            Layer to write, and name of the record in ``adata.uns["countsdiff"]``.
        adata, indices, output, n_samples, guidance_scale, inplace, seed, batch_size, return_std, interval
            As for :meth:`impute`; every entry is rewritten, and samples are independent given the cell's expression.

        Returns
        -------
        As :meth:`impute`.

        Examples
        --------
        >>> model.denoise(output="log_mean")  # layer denoised, best after normalise-and-log
        >>> model.denoise(output="sample", depth=2.0, key_added="replicate")
        """
        check_choice(get_args(Output), output=output)
        request = Request(output, n_samples, SamplerConfig(), seed, depth, return_std, interval)
        return self._predict(adata, indices, DENOISE, request, guidance_scale, key_added, inplace, batch_size)

    def deepen(
        self,
        adata: AnnData | MuData | None = None,
        *,
        depth: float = 4.0,
        indices: Sequence[int] | None = None,
        output: Literal["mean", "log_mean", "sample"] = "mean",
        n_samples: int = 1,
        guidance_scale: float = 1.0,
        key_added: str = "deepened",
        inplace: bool = True,
        seed: int = 0,
        batch_size: int | None = None,
        return_std: bool = False,
        interval: float | None = None,
    ) -> NDArray | dict[str, NDArray] | None:
        """Predict what every cell would show if it were sequenced more deeply.

        The observed counts, plus those that further sequencing, of ``depth`` − 1 times the cell's own depth, would
        find: births with mean (depth − 1) λ, λ being the denoised expression (docs/theory). Counts never decrease. An
        entry that is missing in the data is predicted as a whole, with mean depth · λ.

        Parameters
        ----------
        depth
            Target depth, relative to the cell's own; at least 1, at which nothing is added.
        output
            ``"mean"``; ``"log_mean"``, which has the smallest error after normalisation and log1p, see :meth:`impute`,
            and suits neighbours and clusters; or ``"sample"`` for whole numbers, independent given the cell's
            expression.
        key_added
            Layer to write, and name of the record in ``adata.uns["countsdiff"]``.
        adata, indices, n_samples, guidance_scale, inplace, seed, batch_size, return_std, interval
            As for :meth:`impute`.

        Returns
        -------
        As :meth:`impute`.

        Raises
        ------
        ValueError
            If the depth is below 1, or the output is another one.

        Examples
        --------
        >>> model.deepen(depth=4)
        >>> bool((model.adata.layers["deepened"] >= model.adata.layers["counts"].toarray()).all())
        True
        """
        if output not in ("mean", "log_mean", "sample"):
            raise ValueError(f"deepen gives output='mean', 'log_mean' or 'sample'; got {output!r}.")
        if not depth >= 1.0:
            raise ValueError(f"deepen adds counts: depth must be at least 1; got {depth}. Thin the counts to go below.")
        request = Request(output, n_samples, SamplerConfig(), seed, depth, return_std, interval)
        return self._predict(adata, indices, DEEPEN, request, guidance_scale, key_added, inplace, batch_size)

    def _check_impute(self, key_added: str, **options: Any) -> None:
        """Check arguments of :meth:`impute`, as :func:`countsdiff.pp.impute` does before it trains."""
        defaults = {name: p.default for name, p in inspect.signature(self.impute).parameters.items()}
        options = defaults | options
        request, cells = self._request(**options), self._cells(self.adata)
        self._result_names(request, key_added, options["missing"])
        request.check_task(resolve_missing(options["missing"], self.adata, cells.reader, cells.labels))

    def _request(
        self,
        *,
        output,
        n_samples,
        n_steps,
        attrition,
        attrition_kind,
        births,
        spacing,
        method,
        n_resample,
        jump,
        seed,
        return_std,
        interval,
        **_others,
    ) -> Request:
        """Check the options of :meth:`impute` and put them together."""
        check_choice(("conditional", "repaint"), method=method)
        check_choice(get_args(Output), output=output)
        sampler = SamplerConfig(n_steps, spacing, attrition, attrition_kind, births, self.module.times.schedule)
        repaint = RepaintConfig(n_resample, jump) if method == "repaint" else None
        return Request(output, n_samples, sampler, seed, 1.0, return_std, interval, repaint)
