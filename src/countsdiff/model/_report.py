"""The report of a model about itself: from AnnData to arrays, which `countsdiff.report` makes findings of."""

import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from countsdiff.counts import CellReader
from countsdiff.files import atomic
from countsdiff.layers import get_layer
from countsdiff.model._base import CellModel
from countsdiff.model._data import row_keys
from countsdiff.model._predict import Cells
from countsdiff.model.hold_out import ScoredCells, check_known, hold_out, scored_rows
from countsdiff.model.missing import DENOISE, MISSING, ZEROS, Matrix, resolve_missing
from countsdiff.model.request import Request
from countsdiff.report import (
    FILLED,
    Findings,
    HeldOut,
    by_label,
    calibrate,
    compare,
    null_check,
    render,
    summarise,
)

_INTERVAL = 0.9
_OUTPUTS = ("mean", "log_mean", "sample")
_PACKAGES = ("countsdiff", "torch", "scvi-tools", "anndata", "numpy")


class ReportingModel(CellModel):
    """What a model says of its own answers."""

    def report(
        self,
        path: str | Path,
        adata: AnnData | None = None,
        *,
        held_out: str | Matrix | None = None,
        details: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> Findings:
        """Check the model on entries that it was not trained on, and write a page that says how far to trust it.

        Accuracy beside simple methods, calibration, what happens to zeros, a null check, and warnings in plain words;
        ``countsdiff impute --report`` does all of it for a file.

        Parameters
        ----------
        path
            HTML file to write; it needs no other.
        adata
            Cells to be scored on. Default: the training data.
        held_out
            Entries to score: name of a layer, or a boolean matrix ``(n_obs, n_vars)``. Their counts have to be in
            `adata`, and they must not have been trained on. Default: a twentieth of the observed entries, in cells
            that the model has not seen.
        details
            Further lines for the table of settings.
        seed
            Seed of the choice of entries, of the permutations and of the samples.

        Returns
        -------
        countsdiff.report.Findings
            What the page shows, as numbers.

        Raises
        ------
        ValueError
            If an entry to score was trained on (by the data that the model holds), its count is NaN, all of them are
            zero, or there are fewer than twenty.
        FileNotFoundError
            If the folder of `path` does not exist.
        TypeError
            If the model is one of several modalities.
        RuntimeError
            If the model is not trained.

        Notes
        -----
        At most 40 million entries of evenly spaced cells are used, but at least 500 cells: kNN smoothing needs them as
        a dense matrix, and smooths over these cells alone.

        Examples
        --------
        >>> adata.layers["held_out"] = countsdiff.pp.mcar(adata.shape, 0.05)
        >>> CountsDiffImputer.setup_anndata(adata, missing_layer="held_out")
        >>> model = CountsDiffImputer(adata)
        >>> model.train()
        >>> findings = model.report("report.html", held_out="held_out")
        """
        start = time.perf_counter()
        if not Path(path).resolve().parent.is_dir():  # not after all the computing
            raise FileNotFoundError(f"There is no folder {Path(path).parent} to write the report to; create it first.")
        self._check_if_trained(warn=False)
        adata = self._anndata_or_own(adata)
        cells = self._cells(adata)
        if isinstance(held_out, str):
            held_out = get_layer(adata, held_out)
        chosen = (
            hold_out(cells.reader, seed) if held_out is None else resolve_missing(held_out, adata, cells.reader).hidden
        )
        entries = ScoredCells(cells.reader, chosen)
        rows = scored_rows(entries.reader, entries.cells)
        checked = self._check_new(adata, entries, rows)
        counts, blank, held = entries(rows)
        check_known(counts, held, adata, rows)

        some = replace(
            cells, keys=cells.keys[rows], categories=cells.categories[rows], continuous=cells.continuous[rows]
        )
        predictions = self._held_out(some, counts, blank, held)
        hidden = np.where(held, np.float32(0), counts)

        def denoise(values: NDArray, missing: NDArray, output: str) -> NDArray:
            n = len(values)  # covariates are not looked at, and names only seed samples: the first ones will do
            of = replace(
                some,
                reader=CellReader(values, missing),
                keys=some.keys[:n],
                categories=some.categories[:n],
                continuous=some.continuous[:n],
            )
            return np.concatenate([m[0] for _, m, _ in self._answers(of, DENOISE, Request(output, seed=seed), 0.0)])

        findings = Findings(
            data=summarise(entries.blocks()),
            held_out=predictions,
            scores=compare(predictions, hidden, blank | held, seed),
            calibration=calibrate(predictions, seed),
            labels=by_label(*self._labels(cells, rows), *self._zeros(some, counts, blank), predictions),
            null=null_check(counts, blank, denoise, _OUTPUTS, seed),
            checked=checked,
            settings={},
        )
        settings = self._settings(seed) | dict(details or {})
        settings["this report took"] = f"{time.perf_counter() - start:.0f} s"
        findings = replace(findings, settings=settings)
        with atomic(Path(path)) as page:
            page.write_text(render(findings), encoding="utf-8")
        return findings

    def _check_new(self, adata: AnnData, entries: ScoredCells, rows: NDArray[np.intp]) -> bool:
        """Check that no entry to score was trained on, in the model's own data; return whether that says it all.

        It does not where the model comes from a reference, which may have seen these cells.
        """
        if self.adata is None or not self.learned_from_data_:
            return False
        trained = self._reader(self.adata)
        places = pd.Index(row_keys(self.adata.obs_names)).get_indexer(row_keys(adata.obs_names))
        for block in trained.chunks(rows[places[rows] >= 0]):
            seen = entries.held(block) & ~trained(places[block])[1]
            if seen.any():
                i, gene = np.argwhere(seen)[0]
                raise ValueError(
                    f"The model was trained on entries to score, for example cell {adata.obs_names[block[i]]!r}, gene "
                    f"{self.get_var_names()[gene]!r}: how well it fits them says nothing of entries that are missing. "
                    "Hide some before training (see CountsDiffImputer.report, or use countsdiff impute --report), and "
                    "give held_out; or give cells that it has not seen, under names of their own."
                )
        return not self.starts_from_reference_

    def _held_out(self, some: Cells, counts: NDArray, blank: NDArray, held: NDArray) -> HeldOut:
        """What the model predicts of the entries held out, given all others."""
        found: list[list[NDArray]] = []
        cells = replace(some, reader=CellReader(counts, blank | held))
        request = Request("mean", return_std=True, interval=_INTERVAL)
        for block, matrices, _ in self._answers(cells, MISSING, request):
            found.append([matrix[held[block]].astype(np.float64) for matrix in matrices])
        mean, std, lower, upper = (np.concatenate(parts) for parts in zip(*found, strict=True))
        rows, columns = np.nonzero(held)
        truth = counts[held].astype(np.float64)
        return HeldOut(rows, columns, (len(held), held.shape[1]), truth, mean, std, lower, upper, _INTERVAL)

    def _zeros(self, some: Cells, counts: NDArray, blank: NDArray) -> tuple[NDArray, NDArray]:
        """Observed zeros of every cell, and those that imputing zeros fills."""
        zero = (counts == 0) & ~blank
        filled = np.zeros(len(counts), dtype=np.intp)
        cells = replace(some, reader=CellReader(counts, blank))
        for rows, (mean,), _ in self._answers(cells, ZEROS, Request("mean")):
            filled[rows] = (zero[rows] & (mean >= FILLED)).sum(1)
        return zero.sum(1), filled

    def _labels(self, cells: Cells, rows: NDArray[np.intp]) -> tuple[list[str], NDArray[np.intp]]:
        """Names of the labels, and the code of each cell's; one for all where there are none."""
        if cells.labels is None:
            return ["all cells"], np.zeros(len(rows), dtype=np.intp)
        return [str(name) for name in self._state(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"]], cells.labels[rows]

    def _settings(self, seed: int) -> dict[str, str]:
        setup = {k: v for k, v in self._setup_args().items() if v is not None}
        settings = {"model": self._model_summary_string, "counts": self._layer() or "X"}
        settings |= {
            name: str(value) for name, value in setup.items() if name.endswith("_key") or name.endswith("_keys")
        }
        if getattr(self, "trainer", None) is not None:
            settings["training steps"] = f"{self.trainer.global_step:,}"
        settings["seed of this report"] = str(seed)
        settings["versions"] = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
        settings["machine"] = (
            f"Python {platform.python_version()}, {self.device.type}, {torch.get_num_threads()} threads"
        )
        return settings
