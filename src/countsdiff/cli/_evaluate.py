import json as json_format
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from countsdiff.cli._io import InputError, blame, check_output, read, say
from countsdiff.files import atomic

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_NAMES = {
    "r2": "R²",
    "poisson_loss": "Poisson loss",
    "rmse": "RMSE",
    "mae": "MAE",
    "bias": "Bias",
    "relative_bias": "Relative bias",
    "spearman_per_cell": "Spearman per cell",
}


def evaluate(
    truth: Annotated[Path, Option(metavar="A", help="The true counts, .h5ad or .zarr.")],
    imputed: Annotated[Path, Option(metavar="B", help="The imputed counts, .h5ad or .zarr.")],
    missing_layer: Annotated[str, Option(help="Boolean layer of B: the entries that were hidden, which are scored.")],
    layer: Annotated[
        str | None, Option(help="Layer of A with the counts.", show_default="counts if there is one, else X")
    ] = None,
    key: Annotated[str, Option("--key-added", "--key", help="Layer of B to score.")] = "imputed",
    json: Annotated[Path | None, Option(metavar="FILE", help="Write the scores to this file, too.")] = None,
) -> None:
    """Score imputed counts against the truth, entry by entry; cells and genes are matched by name."""
    if json is not None:
        check_output(json, truth, imputed)
    scored, known = read(imputed), read(truth)

    import numpy as np
    from scipy import sparse

    from countsdiff import metrics
    from countsdiff.counts import check_boolean, check_counts, check_unique
    from countsdiff.layers import default_layer, get_layer

    with blame(imputed):
        marks = get_layer(scored, missing_layer)
        check_boolean(marks, f"layers[{missing_layer!r}]")
        hidden = sparse.csr_matrix(marks, dtype=bool)
        prediction = get_layer(scored, key)
        check_unique(scored.obs_names, "cell")
        check_unique(scored.var_names, "gene")
    with blame(truth):
        check_unique(known.obs_names, "cell")
        check_unique(known.var_names, "gene")
        layer = layer or default_layer(known)
        check_counts(known, layer, "the truth")
        counts = get_layer(_align(known, scored), layer)
    hidden.eliminate_zeros()
    n_hidden = hidden.nnz
    if n_hidden == 0:
        raise InputError(f"{imputed}: no entry is marked in layers[{missing_layer!r}]; there is nothing to score.")
    hidden = _only(hidden, prediction, lambda values: ~np.isnan(values))
    if hidden.nnz == 0:
        raise InputError(f"{imputed}: layers[{key!r}] is NaN at every entry marked in layers[{missing_layer!r}].")
    if (infinite := _only(hidden, prediction, np.isinf)).nnz:
        raise InputError(f"{imputed}: layers[{key!r}] is infinite for {_first(infinite, scored)}.")
    if (unknown := _only(hidden, counts, np.isnan)).nnz:
        raise InputError(f"{truth}: the true count of {_first(unknown, scored)} is NaN.")
    with blame(imputed):
        scores = metrics.evaluate(counts, prediction, hidden)
    scores |= {"n_entries": hidden.nnz, "n_not_imputed": n_hidden - hidden.nnz}
    _print(scores, key, truth)
    if not _only(hidden, counts, lambda values: values > 0).nnz:
        say(f"All true counts are 0: does {truth.name} have the counts after hiding?")
    if json is not None:
        sources = {"truth": str(truth), "imputed": str(imputed), "missing_layer": missing_layer, "key": key}
        finite = {name: value if np.isfinite(value) else None for name, value in scores.items()}
        with atomic(json) as temporary:
            temporary.write_text(json_format.dumps(sources | finite, indent=2) + "\n")


def _align(truth: "AnnData", imputed: "AnnData") -> "AnnData":
    """Bring the truth into the order of the imputed data, of which it has to have all cells and genes."""
    if truth.obs_names.equals(imputed.obs_names) and truth.var_names.equals(imputed.var_names):
        return truth
    rows = _positions("cell", truth.obs_names, imputed.obs_names)
    return truth[rows, _positions("gene", truth.var_names, imputed.var_names)]


def _positions(what: str, names: "pd.Index", wanted: "pd.Index") -> Any:
    positions = names.get_indexer(wanted)
    absent = wanted[positions < 0]
    if len(absent):
        raise ValueError(
            f"this file lacks {len(absent)} of the {len(wanted)} imputed {what}s, for example {absent[0]!r}; "
            "give the file that the imputed one was made from."
        )
    return positions


def _only(hidden: Any, matrix: Any, which: Callable[[Any], Any]) -> Any:
    """Those hidden entries at which the values of `matrix` are such that `which` says so."""
    import numpy as np
    from scipy import sparse

    rows, columns = hidden.nonzero()
    values = np.asarray((matrix.tocsr() if sparse.issparse(matrix) else matrix)[rows, columns]).ravel()
    kept = which(values.astype(np.float64))
    return sparse.csr_matrix((np.ones(kept.sum(), dtype=bool), (rows[kept], columns[kept])), shape=hidden.shape)


def _first(entries: Any, data: "AnnData") -> str:
    """Name the first of some entries."""
    cell, gene = (at[0] for at in entries.nonzero())
    return f"cell {data.obs_names[cell]!r}, gene {data.var_names[gene]!r}"


def _print(scores: dict[str, Any], key: str, truth: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    caption = f"{scores['n_entries']:,} hidden entries"
    if scores["n_not_imputed"]:
        caption += f"; {scores['n_not_imputed']:,} more were not imputed (NaN) and are left out"
    table = Table("Metric", title=f"{key} against {truth.name}", caption=caption)
    table.add_column("Value", justify="right")
    for name, label in _NAMES.items():
        table.add_row(label, f"{scores[name]:.4f}")
    Console().print(table)
