"""What differs on a CUDA device: arithmetic, streams of random numbers, and what makes the host wait."""

import warnings
from collections import Counter
from itertools import islice

import anndata as ad
import lightning.pytorch as pl
import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse, stats

from countsdiff import CountsDiffImputer, datasets, metrics, pp
from countsdiff.core import SamplerConfig, sample, thin
from countsdiff.core.counting import binomial_quantile, negative_binomial_quantile, poisson_quantile
from countsdiff.core.interfaces import Context, Intensity
from countsdiff.core.random import RowGenerator
from countsdiff.model._graph import GraphedLoss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
GPU = torch.device("cuda")


def test_counts_are_thinned_by_the_binomial_law():
    counts = torch.full((100_000,), 9.0, device=GPU)
    survivors = thin(counts, 0.3, torch.Generator(GPU).manual_seed(0)).cpu().numpy().astype(int)
    expected = stats.binom.pmf(np.arange(10), 9, 0.3) * len(counts)
    assert stats.chisquare(np.bincount(survivors, minlength=10), expected).pvalue > 1e-3


def test_rows_draw_the_same_numbers_as_on_the_cpu():
    keys = torch.arange(50)
    drawn = [RowGenerator(3, keys.to(device)).uniform(400).cpu() for device in ("cpu", GPU)]
    assert torch.equal(*drawn)


def test_quantiles_are_those_of_the_cpu():
    u = RowGenerator(0, torch.arange(200)).uniform(100)
    mean = torch.logspace(-3, 4, 100).expand(200, -1)
    laws = {
        "poisson": poisson_quantile,
        "negative binomial": lambda u, m: negative_binomial_quantile(u, torch.full_like(m, 0.7), m),
        "binomial": lambda u, m: binomial_quantile(u, m.round(), torch.full_like(m, 0.4)),
    }
    for name, law in laws.items():
        there, here = law(u.to(GPU), mean.to(GPU)).cpu(), law(u, mean)
        # special functions differ in their last digits, and now and then a quantile lies between them
        assert (there != here).float().mean() < 1e-3, name
        assert ((there - here).abs() <= 1).all(), name


def test_the_oracle_is_sampled_exactly():
    x_0 = torch.poisson(torch.full((20, 30), 4.0)).to(GPU)
    noised = torch.ones_like(x_0, dtype=torch.bool)
    nothing = torch.empty(20, 0, device=GPU)
    context = Context(torch.zeros_like(x_0), ~noised, noised, nothing.long(), nothing)

    def oracle(x_t, p, context):
        return Intensity((x_0 - x_t) / (1.0 - p))

    for n_steps in (1, 7):
        drawn = sample(oracle, context, RowGenerator(0, torch.arange(20, device=GPU)), SamplerConfig(n_steps=n_steps))
        assert torch.equal(drawn, x_0)


@pytest.fixture(scope="module")
def pbmc():
    """Bundled cells with half of the entries hidden: complete counts, mask, AnnData."""
    adata = datasets.pbmc3k()[:, :500].copy()
    counts = adata.X.toarray()
    hidden = pp.mcar(adata.shape, 0.5, seed=1)
    masked = ad.AnnData(sparse.csr_matrix(np.where(hidden, 0, counts)))
    masked.layers["hidden"] = sparse.csr_matrix(hidden)
    CountsDiffImputer.setup_anndata(masked, missing_layer="hidden")
    return counts, hidden, masked


def trained(masked: ad.AnnData, **options) -> CountsDiffImputer:
    model = CountsDiffImputer(masked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(**{"max_steps": 600, "enable_progress_bar": False} | options)
    return model


@pytest.fixture(scope="module")
def model(pbmc):
    return trained(pbmc[2], accelerator="gpu")


def test_training_is_as_good_as_on_the_cpu(pbmc, model):
    counts, hidden, masked = pbmc
    models = {
        "cpu": trained(masked, accelerator="cpu"),
        "gpu": model,
        "gpu, bf16": trained(masked, accelerator="gpu", precision="bf16-mixed"),
    }
    loss = {
        name: metrics.evaluate(counts, m.impute(inplace=False), hidden)["poisson_loss"] for name, m in models.items()
    }
    assert models["gpu"].device.type == "cuda"
    # dropout draws other numbers there, so that none of them can be expected to be the same
    assert loss["gpu"] < loss["cpu"] + 0.003, loss
    assert loss["gpu, bf16"] < loss["cpu"] + 0.003, loss


def test_a_model_says_the_same_on_both_devices(pbmc, model, tmp_path):
    _, hidden, masked = pbmc
    model.save(tmp_path / "model")
    there = {"mean": model.impute(inplace=False), "sample": model.impute(output="sample", n_steps=5, inplace=False)}
    loaded = CountsDiffImputer.load(tmp_path / "model", masked, accelerator="cpu")
    np.testing.assert_allclose(loaded.impute(inplace=False)[hidden], there["mean"][hidden], rtol=2e-3, atol=1e-4)
    here = loaded.impute(output="sample", n_steps=5, inplace=False)
    assert (here[hidden] == there["sample"][hidden]).mean() > 0.99


def test_samples_do_not_depend_on_the_batch(model):
    one, other = (model.impute(output="sample", batch_size=size, inplace=False) for size in (100, 2638))
    np.testing.assert_array_equal(one, other)


class Watch(pl.Callback):
    """Notes the lines of training, and of nothing before or after it, that wait for the device."""

    def __init__(self):
        self.lines: Counter[str] = Counter()

    def on_train_start(self, *args: object) -> None:
        torch.cuda.set_sync_debug_mode("warn")
        self._recorder = warnings.catch_warnings(record=True)
        self._caught = self._recorder.__enter__()
        warnings.simplefilter("always")

    def on_train_end(self, *args: object) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self._recorder.__exit__()
        self.lines.update(f"{w.filename}:{w.lineno}" for w in self._caught if "synchronizing CUDA" in str(w.message))

    def on_exception(self, *args: object) -> None:
        self.on_train_end()  # the settings are the whole process's


def waits(adata: ad.AnnData | mudata.MuData, n_steps: int, precision: str = "32-true", **settings: str) -> Counter[str]:
    """How often the host waits for the device in a training of one epoch, by the line that waits."""
    model, watch = CountsDiffImputer(adata, **settings), Watch()
    model.train(
        n_steps,
        batch_size=adata.n_obs // n_steps + 1,
        validation_size=0.0,
        accelerator="gpu",
        precision=precision,
        enable_progress_bar=False,
        callbacks=[watch],
    )
    assert model.trainer.global_step == n_steps
    return watch.lines


def test_a_graph_has_the_loss_and_gradients_of_the_module(pbmc):
    adata = ad.AnnData(pbmc[2].X[:, :64])
    CountsDiffImputer.setup_anndata(adata)
    model = CountsDiffImputer(adata, dropout=0.0)
    module, generator = model.module.to(GPU).train(), torch.Generator(GPU).manual_seed(0)
    one, other = (
        module.noised({name: tensor.to(GPU) for name, tensor in batch.items()}, generator)
        for batch in islice(model._make_data_loader(adata=adata, batch_size=128), 2)
    )

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        module.zero_grad()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in module.denoiser.parameters() if p.grad is not None)]

    graph = GraphedLoss(module, one)
    for cells in (one, other, one):
        expected = gradients(module.loss(cells, 1.0))
        torch.testing.assert_close(gradients(graph(cells)), expected, rtol=1e-3, atol=1e-5)
        assert any(gradient.abs().max() > 0 for gradient in expected[1:])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("backbone", ["mlp", "transformer"])
def test_the_host_waits_for_no_step(pbmc, backbone, precision):
    """Longer epochs wait as often as shorter ones: a step itself never does."""
    adata = ad.AnnData(pbmc[2].X[:, :64])
    CountsDiffImputer.setup_anndata(adata)
    long, short = (waits(adata, n_steps, precision, backbone=backbone) for n_steps in (15, 5))
    assert not long - short


def with_covariates(counts: sparse.csr_matrix) -> ad.AnnData:
    rng = np.random.default_rng(0)
    obs = {"batch": rng.choice(["x", "y"], counts.shape[0]), "age": rng.random(counts.shape[0])}
    adata = ad.AnnData(counts, obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(counts.shape[0])]))
    CountsDiffImputer.setup_anndata(adata, batch_key="batch", continuous_covariate_keys=["age"])
    return adata


def with_modalities(counts: sparse.csr_matrix) -> mudata.MuData:
    parts = {"rna": ad.AnnData(counts[:, :50]), "prot": ad.AnnData(counts[:, 50:])}
    for name, part in parts.items():
        part.var_names = [f"{name}{i}" for i in range(part.n_vars)]
    mdata = mudata.MuData(parts)
    CountsDiffImputer.setup_mudata(mdata)
    return mdata


@pytest.mark.parametrize("schedule", ["cosine", "jump"])
@pytest.mark.parametrize("make", [with_covariates, with_modalities])
def test_nor_for_covariates_modalities_and_schedules(pbmc, make, schedule):
    data = make(pbmc[2].X[:, :64])
    assert not waits(data, 15, schedule=schedule) - waits(data, 5, schedule=schedule)
