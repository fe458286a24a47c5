"""What is drawn is what is in the data."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from mudata import MuData
from scipy import sparse, stats

from countsdiff import CountsDiffImputer, metrics, pl
from countsdiff.core import Intensity, SamplerState, get_schedule

ON_AXES = {
    "recovery": lambda a, **k: pl.recovery(a, "truth", **k),
    "calibration": lambda a, **k: pl.calibration(a, "truth", **k),
    "coverage": lambda a, **k: pl.coverage(a, "truth", interval=0.9, **k),
    "zeros_filled": lambda a, **k: pl.zeros_filled(a, "kind", **k),
    "uncertainty": lambda a, **k: pl.uncertainty(a, **k),
    "schedules": lambda a, **k: pl.schedules(**k),
}


@pytest.mark.parametrize("name", ON_AXES)
def test_scanpys_manners(name, imputed, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(name))
    assert isinstance(ON_AXES[name](imputed), Axes)
    assert len(shown) == 1
    _, given = plt.subplots()
    assert ON_AXES[name](imputed, ax=given) is given
    ON_AXES[name](imputed, save=tmp_path / "plot.png")
    ON_AXES[name](imputed, show=False)
    try:
        sc.settings.autoshow = False
        ON_AXES[name](imputed)
    finally:
        sc.settings.autoshow = True
    assert len(shown) == 1
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_recovery_counts_every_hidden_entry(imputed):
    axes = pl.recovery(imputed, "truth", show=False)
    hidden = imputed.layers["hidden"]
    assert axes.collections[0].get_array().sum() == hidden.sum()
    r = np.corrcoef(*(np.log1p(imputed.layers[k][hidden]) for k in ("truth", "imputed")))[0, 1]
    assert f"{hidden.sum():,} held-out entries, r = {r:.2f}" in axes.get_title()


def test_what_was_not_imputed_is_left_out(imputed):
    at = np.argwhere(imputed.layers["hidden"])[:7]
    imputed.layers["imputed"][tuple(at.T)] = np.nan
    axes = pl.recovery(imputed, "truth", show=False)
    assert axes.get_title().startswith(f"{imputed.layers['hidden'].sum() - 7:,} held-out entries, r = 0.")


def test_data_on_disk_are_drawn_as_in_memory(imputed, tmp_path):
    imputed.X = sparse.csr_matrix(imputed.X)
    imputed.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    titles = [pl.recovery(data, None, show=False).get_title() for data in (imputed, backed)]
    assert titles[0] == titles[1]


def test_a_part_of_a_figure_is_saved_with_the_whole(imputed, tmp_path):
    part = plt.figure().subfigures(1, 2)[0]
    pl.recovery(imputed, "truth", ax=part.subplots(), save=tmp_path / "whole.png")
    assert (tmp_path / "whole.png").stat().st_size > 0


def test_counts_after_hiding_are_no_truth(imputed):
    after = np.where(imputed.layers["hidden"], 0.0, imputed.layers["truth"])
    with pytest.warns(UserWarning, match="All held-out counts are 0"):
        pl.coverage(imputed, after, interval=0.9, show=False)


def test_calibrated_predictions_are_on_the_diagonal(imputed):
    axes = pl.calibration(imputed, "truth", show=False)
    predicted, observed = axes.containers[0].lines[0].get_data()
    hidden = imputed.layers["hidden"]
    y, x = imputed.layers["imputed"][hidden], imputed.layers["truth"][hidden]
    assert len(predicted) > 8
    enough = predicted * hidden.sum() / 20 > 100
    np.testing.assert_allclose(observed[enough], predicted[enough], rtol=0.3)
    top = y >= y[np.argsort(y)][-1] * (max(y.min(), 1e-4) / y.max()) ** (1 / 20)  # the last of twenty bins
    assert predicted[-1] == pytest.approx(y[top].mean())
    assert observed[-1] == pytest.approx(x[top].mean())


def test_coverage_is_the_share_within(imputed):
    hidden = imputed.layers["hidden"]
    low, x, high = (imputed.layers[k][hidden] for k in ("imputed_lower", "truth", "imputed_upper"))
    inside = (low <= x) & (x <= high)
    axes = pl.coverage(imputed, "truth", interval=0.9, show=False)
    assert axes.get_title().startswith(f"{inside.mean():.1%}")
    shares = axes.containers[0].lines[0].get_ydata()
    assert shares.min() < inside.mean() < shares.max()


def test_zeros_filled_by_label(imputed):
    zero = imputed.X == 0
    filled = zero & (imputed.layers["imputed"] >= 0.5)
    axes = pl.zeros_filled(imputed, "kind", show=False)
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = {name: bar.get_width() for name, bar in zip(names, axes.patches, strict=True)}
    for kind in ("a", "b"):
        at = (imputed.obs["kind"] == kind).to_numpy()
        assert widths[kind] == pytest.approx(100 * filled[at].sum() / zero[at].sum())


def test_missing_entries_are_no_zeros(imputed):
    hidden = np.random.default_rng(0).random(imputed.shape) < 0.3
    zero = (imputed.X == 0) & ~hidden
    share = 100 * (zero & (imputed.layers["imputed"] >= 0.5)).sum() / zero.sum()
    axes = pl.zeros_filled(imputed, "kind", hidden=sparse.csr_matrix(hidden), show=False)
    assert axes.get_title() == f"all cells: {share:.1f} %"


def test_an_embedding_by_scanpys_short_name(imputed):
    axes = [pl.uncertainty(imputed, basis=basis, show=False) for basis in ("umap", "X_umap")]
    offsets = [axis.collections[0].get_offsets() for axis in axes]
    np.testing.assert_array_equal(*offsets)


def test_gene_gene_before_after_and_null(imputed):
    imputed.layers["sparse"] = sparse.csr_matrix(imputed.layers["imputed"])
    axes = pl.gene_gene(imputed, "gene3", "gene5", imputed="sparse", show=False)
    assert axes.shape == (3,)
    for axis, matrix in zip(axes, (imputed.X, imputed.layers["imputed"], imputed.layers["null"]), strict=True):
        values = metrics.log_normalise(matrix)[:, [3, 5]]
        np.testing.assert_allclose(axis.collections[0].get_offsets(), values)
        assert f"{stats.spearmanr(*values.T).statistic:.2f}" in axis.get_title()


def test_uncertainty_of_cells_and_of_a_gene(imputed):
    hidden = imputed.layers["hidden"]
    std, mean = (np.where(hidden, imputed.layers[k], 0) for k in ("imputed_std", "imputed"))
    colours = pl.uncertainty(imputed, show=False).collections[0]
    np.testing.assert_allclose(colours.get_array(), np.sort(std.sum(1) / mean.sum(1)))
    of_gene = pl.uncertainty(imputed, gene="gene4", show=False).collections[0]
    order = np.argsort(std[:, 4])
    np.testing.assert_allclose(of_gene.get_offsets()[-1], imputed.obsm["X_umap"][order[-1]])


def test_cells_that_were_not_imputed_do_not_spoil_uncertainty(imputed):
    whole = pl.uncertainty(imputed, show=False).collections[0].get_array()
    first = imputed.layers["hidden"].copy()
    first[1:] = False
    for name in ("imputed", "imputed_std"):
        imputed.layers[name][first] = np.nan
    part = pl.uncertainty(imputed, show=False).collections[0].get_array()
    assert np.isfinite(part).all()
    assert len(np.setdiff1d(part, whole)) <= 1


def test_history_of_training(make_adata):
    adata = make_adata()
    CountsDiffImputer.setup_anndata(adata)
    model = CountsDiffImputer(adata, width=16)
    with pytest.raises(ValueError, match="no history"):
        pl.history(model)
    model.train(2, logger=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match=r"model\.trainer\.logger"):
        pl.history(model)
    model.train(max_steps=300, batch_size=32, enable_progress_bar=False)
    axes = pl.history(model, show=False)
    training, validation = axes.lines[0], axes.figure.axes[1].lines[0]
    np.testing.assert_allclose(training.get_ydata(), model.history["train_loss"].iloc[:, 0].astype(float))
    best = axes.figure.axes[1].lines[1].get_ydata()
    assert best == validation.get_ydata().min()


def test_schedules_are_survival_probabilities():
    lines = pl.schedules(["cosine", get_schedule("linear")], show=False).lines
    t = lines[0].get_xdata()
    np.testing.assert_allclose(lines[0].get_ydata(), np.cos(np.pi * t / 2) ** 2, atol=1e-9)
    np.testing.assert_allclose(lines[1].get_ydata(), 1 - t)


def test_trajectory_ends_in_the_cell(make_adata):
    adata = make_adata()
    CountsDiffImputer.setup_anndata(adata)
    model = CountsDiffImputer(adata, width=16)
    model.train(max_steps=3, batch_size=64, enable_progress_bar=False)
    states = []
    cells = model.generate(3, n_steps=6, callback=states.append)
    axes = pl.trajectory(states, cell=2, gene_names=adata.var_names, n_genes=10, show=False)
    drawn = np.expm1(axes.collections[0].get_array())
    counts = cells.X.toarray()[2]
    assert drawn.shape == (10, 6)
    np.testing.assert_allclose(drawn[:, -1], np.sort(counts)[::-1][:10], rtol=1e-5)
    assert (np.diff(drawn) >= -1e-4).all()  # births only
    assert axes.get_yticklabels()[0].get_text() == f"gene{np.argsort(-counts, kind='stable')[0]}"
    for wrong, message in (({"cell": 3}, "no cell 3"), ({"gene_names": ["a"]}, "gene_names are 1")):
        with pytest.raises(ValueError, match=message):
            pl.trajectory(states, **wrong)
    with pytest.raises(ValueError, match="callback"):
        pl.trajectory([])


def test_trajectory_finds_cells_that_were_drawn_later():
    def state(step, value, n_obs):
        x = torch.full((n_obs, 2), float(value))
        return SamplerState(step, (step + 1) / 2, x, Intensity(x))

    states = [state(0, 1, 3), state(1, 2, 3), state(0, 5, 2), state(1, 7, 2)]
    drawn = pl.trajectory(states, cell=4, show=False).collections[0].get_array()
    np.testing.assert_allclose(np.expm1(drawn), [[5, 7], [5, 7]])
    with pytest.raises(ValueError, match="of 5 cells, numbered from 0; there is no cell 5"):
        pl.trajectory(states, cell=5)


def test_data_frames_go_by_their_names(imputed):
    truth = pd.DataFrame(imputed.layers["truth"], imputed.obs_names, imputed.var_names)
    titles = [pl.recovery(imputed, t, show=False).get_title() for t in (truth, truth.iloc[::-1, ::-1])]
    assert titles[0] == titles[1]
    with pytest.raises(ValueError, match="data frame lacks the gene 'gene0'"):
        pl.recovery(imputed, truth.iloc[:, 1:])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: pl.recovery(a, "nowhere"), KeyError, "'nowhere'"),
        (lambda a: pl.recovery(a, np.zeros((2, 2))), ValueError, r"\(2, 2\)"),
        (lambda a: pl.recovery(a, "truth", hidden=np.zeros(a.shape)), ValueError, "No entry is hidden"),
        (lambda a: pl.recovery(a, "truth", hidden="truth"), ValueError, "must be boolean"),
        (lambda a: pl.zeros_filled(a, "nowhere"), KeyError, "'nowhere'"),
        (lambda a: pl.coverage(a, "truth", interval=90), ValueError, "between 0 and 1"),
        (lambda a: pl.coverage(a, "truth", interval=0.5), ValueError, r"made with interval=0.9; got interval=0.5"),
        (lambda a: pl.recovery(MuData({"rna": a}), "truth"), TypeError, "takes AnnData; got MuData"),
        (lambda a: pl.calibration(a[:1].copy(), "truth"), ValueError, "has ten of the"),
        (lambda a: pl.recovery(a, np.full(a.shape, np.nan)), ValueError, "both a true count and an imputed one"),
        (lambda a: pl.gene_gene(a, "gene1", "nope"), KeyError, "'nope'"),
        (lambda a: pl.gene_gene(a, "gene1", "gene2", null="nil"), KeyError, "no 'nil': impute .*permuted"),
        (lambda a: pl.uncertainty(a, basis="X_tsne"), KeyError, "'X_tsne'"),
        (lambda a: pl.uncertainty(a, gene="nope"), KeyError, "'nope'"),
        (lambda a: pl.uncertainty(a, basis="X_one"), ValueError, "has 1 column"),
        (lambda a: pl.zeros_filled(a, "nothing"), ValueError, "No cell has a value"),
        (lambda a: pl.zeros_filled(a, "kind", save=True), ValueError, "save is the name of a file"),
        (lambda a: pl.zeros_filled(a, "kind", save=".pdf"), ValueError, "save is the name of a file"),
    ],
)
def test_bad_input_is_named(imputed, call, error, message):
    imputed.uns["countsdiff"] = {"imputed": {"interval": 0.9}}
    imputed.obsm["X_one"], imputed.obs["nothing"] = np.zeros((400, 1)), np.full(400, np.nan)
    with pytest.raises(error, match=message):
        call(imputed)
