from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from countsdiff.benchmark import Dataset, Latents, Results


@pytest.fixture(scope="session")
def fakes():
    """The module of fake methods, importable in processes started from here, too."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(Path(__file__).parent)
        patch.setenv("PYTHONPATH", folder)
        patch.syspath_prepend(folder)
        import fake_methods

        yield fake_methods


@pytest.fixture(scope="session")
def data():
    """60 cells of two kinds × 20 genes."""
    rng = np.random.default_rng(0)
    kind = np.arange(60) % 2
    rates = rng.gamma(1.0, 3.0, (2, 20))[kind] * rng.gamma(4.0, 0.25, (60, 1))
    return Dataset(
        name="toy",
        counts=rng.poisson(rates).astype(np.float32),
        genes=np.array([f"gene{i}" for i in range(20)]),
        labels=np.array(["a", "b"])[kind],
        left_out=rng.poisson(30.0, 60).astype(np.float64),
    )


@pytest.fixture(scope="session")
def latents(data, tmp_path_factory):
    """scVI, hardly trained."""
    import scvi

    folder = tmp_path_factory.mktemp("scvi") / "model"
    adata = ad.AnnData(data.counts)
    adata.var_names = data.genes
    scvi.settings.seed = 0
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    model.train(max_epochs=1, enable_progress_bar=False, logger=False)
    model.save(str(folder))
    return Latents(cache=folder.parent / "cache", model=folder)


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "out")
