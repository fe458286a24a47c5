import numpy as np
import pytest
import torch
from anndata import AnnData

from countsdiff import CountsDiffImputer
from countsdiff.core import Context
from countsdiff.counts import CellReader
from countsdiff.model._record import with_later_weights
from countsdiff.model._statistics import gene_statistics

N_OBS, N_VARS = 600, 60


def kinds_of_cells() -> tuple[np.ndarray, np.ndarray]:
    """Counts of three kinds of cells, and the kinds."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=N_OBS)
    rates = rng.gamma(1.0, 2.0, (3, N_VARS))[kind] * rng.gamma(5.0, 0.2, (N_OBS, 1))
    return rng.poisson(rates).astype(np.float32), kind


def n_used(counts: np.ndarray, group_sizes: list[int]) -> int:
    loadings = gene_statistics(CellReader(counts), group_sizes).factors.loadings
    return int(loadings.any(0).sum())


@pytest.mark.parametrize("share_hidden", [0.0, 0.5])
def test_factors_tell_kinds_of_cells_apart(share_hidden):
    counts, kind = kinds_of_cells()
    model = CountsDiffImputer(AnnData(counts))
    known = torch.rand(counts.shape, generator=torch.Generator().manual_seed(1)) >= share_hidden
    shown = torch.as_tensor(counts) * known
    context = Context(shown, known, ~known, torch.zeros(N_OBS, 0, dtype=torch.int64), torch.zeros(N_OBS, 0))
    _, evidence = model.module.denoiser._see(torch.zeros_like(shown), torch.zeros(N_OBS, 1), context)
    factors = evidence.factors.numpy()
    within = sum(((factors[kind == k] - factors[kind == k].mean(0)) ** 2).sum() for k in range(3))
    assert within < 0.5 * ((factors - factors.mean(0)) ** 2).sum()


def test_kinds_need_few_factors_and_chance_hardly_any():
    counts, _ = kinds_of_cells()
    assert 2 <= n_used(counts, [N_VARS]) <= 5
    independent = np.random.default_rng(2).permuted(counts, axis=0)
    assert n_used(independent, [N_VARS]) <= 2  # what all genes share


def test_groups_share_factors():
    # what kind a cell is shows in both groups, each of which has a depth of its own
    counts, _ = kinds_of_cells()
    loadings = gene_statistics(CellReader(counts), [40, 20]).factors.loadings
    strongest = loadings[:, :2].square()
    assert bool((strongest[:40].sum(0) > 0.1).all() & (strongest[40:].sum(0) > 0.1).all())


def test_genes_with_few_counts_are_told_from_others():
    rng = np.random.default_rng(3)
    true = rng.lognormal(np.log(0.05), 1.0, 500)
    counts = rng.poisson(true, (300, 500)).astype(np.float32)
    hidden = rng.random(counts.shape) < 0.5
    statistics = gene_statistics(CellReader(counts, hidden), [500])
    seen, exposure = np.where(hidden, 0, counts).sum(0), (~hidden).sum(0)
    few, many = seen < 4, seen > 40
    means = statistics.mean.numpy()
    np.testing.assert_allclose(means[seen > 0], (seen / exposure)[seen > 0], rtol=0.2)
    # hidden entries of genes that were hardly seen hold more than the seen ones
    expected = (means * statistics.shrinkage.numpy() * hidden.sum(0))[few].sum()
    assert counts[:, few][hidden[:, few]].sum() == pytest.approx(expected, rel=0.15)
    assert expected > 1.2 * seen[few].sum()
    np.testing.assert_allclose(statistics.shrinkage[many], 1.0, atol=0.1)
    np.testing.assert_allclose(statistics.reliability, seen / (seen + 6))
    never = np.where(np.arange(500) < 3, np.nan, counts)  # of which nothing is known at all
    assert gene_statistics(CellReader(never), [500]).shrinkage[:3].tolist() == [1.0] * 3


@pytest.mark.parametrize("backbone", ["mlp", "transformer"])
def test_weights_of_before_there_were_factors_are_read_as_weights_without(backbone):
    counts, _ = kinds_of_cells()
    adata = AnnData(counts)
    model = CountsDiffImputer(adata, backbone=backbone, width=16)
    for parameter in (*model.module.denoiser.parameters(), *model.module.averaged.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    model.is_trained_ = True
    state = dict(model.module.state_dict())
    before = {key: value for key, value in state.items() if "factors" not in key}
    for name in ("denoiser", "averaged.module"):
        if (key := f"{name}.backbone.summary.0.weight") in before:
            before[key] = before[key][:, :3]
        state[f"{name}.factors.loadings"].zero_()
    model.module.load_state_dict(state)
    expected = model.denoise(adata, inplace=False)
    model.module.load_state_dict(with_later_weights(before))
    np.testing.assert_allclose(model.denoise(adata, inplace=False), expected, rtol=1e-5)
