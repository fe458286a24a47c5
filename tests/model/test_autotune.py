import pytest

from countsdiff import CountsDiffImputer

for dependency in ("hyperopt", "ray.tune", "scib_metrics"):
    pytest.importorskip(dependency, reason="needs scvi-tools[autotune]")


def test_scvi_autotune_finds_the_longer_training(make_adata, tmp_path):
    from ray import tune
    from scvi.autotune import run_autotune

    adata = make_adata(n_obs=300)
    CountsDiffImputer.setup_anndata(adata)
    lengths = [1, 200]
    experiment = run_autotune(
        CountsDiffImputer,
        adata,
        metrics="validation_loss",
        mode="min",
        search_space={
            "model_params": {"width": 16},
            "train_params": {"max_steps": tune.grid_search(lengths)},
        },
        num_samples=1,
        seed=0,
        scheduler="fifo",
        searcher="random",
        resources={"cpu": 1},
        logging_dir=str(tmp_path),
    )
    assert not experiment.result_grid.errors
    tried = [result.config["train_params"]["max_steps"] for result in experiment.result_grid]
    assert sorted(tried) == lengths
    best = experiment.result_grid.get_best_result("validation_loss", "min")
    assert best.config["train_params"]["max_steps"] == lengths[1]
