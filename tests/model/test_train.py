import signal
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from countsdiff import CountsDiffImputer
from countsdiff.model._training import _trainer_settings


def fit(adata, seed=0, **kwargs):
    model = CountsDiffImputer(adata, width=32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(batch_size=32, enable_progress_bar=False, seed=seed, **kwargs)
    return model


def weights(model):
    return torch.cat([p.flatten() for p in model.module.averaged.parameters()])


def test_learns_what_a_size_factor_cannot_know(make_adata):
    adata = make_adata(n_obs=600, n_vars=30)
    hidden = np.random.default_rng(0).random(adata.shape) < 0.5
    adata.layers["hidden"] = hidden
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = fit(adata, max_steps=300)
    counts = adata.X.toarray()
    observed = np.where(hidden, np.nan, counts)
    gene_mean = np.nanmean(observed, axis=0)
    size = np.nansum(observed, axis=1) / (~hidden @ gene_mean)
    baseline = (size[:, None] * gene_mean)[hidden]
    imputed = model.impute(inplace=False)[hidden]
    truth = counts[hidden]
    # two cell types with unlike genes: knowing the type halves the squared error, and more
    assert np.mean((imputed - truth) ** 2) < 0.5 * np.mean((baseline - truth) ** 2)
    assert abs(imputed.sum() / truth.sum() - 1) < 0.05


def test_seed_decides_everything(make_adata):
    state = torch.random.get_rng_state()
    first = fit(make_adata(), max_steps=12)
    torch.testing.assert_close(torch.random.get_rng_state(), state)  # the user's own stream is left alone
    torch.rand(3)
    assert torch.equal(weights(first), weights(fit(make_adata(), max_steps=12)))
    assert not torch.equal(weights(first), weights(fit(make_adata(), max_steps=12, seed=1)))


def test_values_behind_missing_entries_do_not_matter(make_adata, hidden):
    plain, poisoned = make_adata(), make_adata()
    counts = poisoned.X.toarray()
    counts[hidden] = 99
    poisoned.X = counts
    for adata in (plain, poisoned):
        adata.layers["hidden"] = hidden
        CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    assert torch.equal(weights(fit(plain, max_steps=12)), weights(fit(poisoned, max_steps=12)))


# whole epochs of three minibatches, or less than one; a warm-up of one step made torch's schedule divide by zero
@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (2, 2), (10, 12), (12, 12)])
def test_counted_in_steps(make_adata, asked, taken):
    assert fit(make_adata(), max_steps=asked).trainer.global_step == taken


def test_ten_steps(make_adata):
    assert fit(make_adata(n_obs=20), max_steps=10).trainer.global_step == 10


def test_history_and_best_weights(make_adata):
    model = fit(make_adata(), max_steps=400)
    validation = model.history["validation_loss"]["validation_loss"]
    assert len(validation) == 4
    assert {"train_loss", "validation_loss"} <= {k.removesuffix("_epoch") for k in model.history}
    generator = torch.Generator().manual_seed(1)
    loader = model._make_data_loader(adata=model.adata, indices=model.validation_indices, batch_size=32)
    model.module.set_calibration(calibrated=False)
    with torch.no_grad():
        (tensors,) = list(loader)
        loss = model.module.imputation_loss(tensors, generator).mean()
    # predictive laws were set right after training: undo that to see the weights that validation saw
    assert np.isclose(validation, float(loss), rtol=1e-5).any()


@pytest.mark.parametrize(("max_epochs", "patience"), [(10, 20), (30, 20), (100, 50)])
def test_early_stopping_waits_for_half_of_a_long_training(max_epochs, patience):
    # with epochs of a hundred steps, each of which is validated
    settings = _trainer_settings(100, max_epochs, 1, early_stopping=True)
    assert (settings["check_val_every_n_epoch"], settings["early_stopping_patience"]) == (1, patience)


# validated after every twelve steps
WITHOUT_LEARNING = {"lr": 1e-12, "early_stopping_patience": 3, "check_val_every_n_epoch": 4}


def test_early_stopping_stops_when_nothing_improves(make_adata):
    # a learning rate of zero learns nothing: three validations without improvement after the first, and out
    model = fit(make_adata(), max_steps=5000, **WITHOUT_LEARNING)
    assert model.trainer.global_step < 6 * 12


def test_early_stopping_can_be_switched_off(make_adata):
    model = fit(make_adata(), max_steps=120, early_stopping=False, **WITHOUT_LEARNING)
    assert model.trainer.global_step == 120


def test_no_validation(make_adata):
    model = fit(make_adata(), max_steps=6, validation_size=0.0)
    assert len(model.validation_indices) == 0
    assert "validation_loss" not in model.history
    with pytest.raises(ValueError, match="validation_size"):
        fit(make_adata(), validation_size=1.0)


def test_bfloat16_keeps_counts_exact(make_adata):
    adata = make_adata()
    model = fit(adata, max_steps=12, precision="bf16-mixed")
    exact = fit(make_adata(), max_steps=12)
    assert all(p.dtype == torch.float32 for p in model.module.averaged.parameters())
    low, high = model.impute(missing="all", inplace=False), exact.impute(missing="all", inplace=False)
    np.testing.assert_allclose(low, high, rtol=0.2)


def test_bfloat16_learns_as_much(make_adata):
    last = [
        fit(make_adata(), max_steps=99, precision=precision).history["validation_loss"].iloc[-1, 0]
        for precision in ("32-true", "bf16-mixed")
    ]
    assert last[0] == pytest.approx(last[1], rel=0.02)


class Norms(pl.Callback):
    """Remembers the norm of the gradients that were stepped along."""

    def __init__(self):
        self.norms = []

    def on_train_batch_end(self, trainer, plan, *_):
        assert all(optimizer.defaults["fused"] for optimizer in trainer.optimizers)
        gradients = [p.grad.flatten() for p in plan.parameters() if p.grad is not None]
        self.norms.append(torch.cat(gradients).norm())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped(make_adata, precision):
    watch = Norms()
    fit(make_adata(), max_steps=6, precision=precision, gradient_clip_val=1e-3, callbacks=[watch])
    np.testing.assert_allclose(watch.norms, 1e-3, rtol=1e-2)


class Spoil(pl.Callback):
    """Spoils the weights that are trained after `step`."""

    def __init__(self, step):
        self.step = step

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == self.step:
            next(pl_module.module.denoiser.parameters()).fill_(torch.nan)


@pytest.mark.parametrize("passes", [1, 2])
def test_a_loss_that_is_no_number_ends_training_and_leaves_the_model_as_it_was(make_adata, passes):
    model = CountsDiffImputer(make_adata(), width=32)
    start = {name: value.clone() for name, value in model.module.state_dict().items()}
    settings = {"batch_size": 32 // passes, "accumulate_grad_batches": passes, "enable_progress_bar": False}
    with pytest.raises(ValueError, match=r"The loss is nan at step 8: train with a smaller lr than 0\.002, .* extreme"):
        model.train(60, check_val_every_n_epoch=1, callbacks=[Spoil(step=7)], **settings)
    after = model.module.state_dict()
    assert after.keys() == start.keys()
    assert all(torch.equal(after[name], value) for name, value in start.items())


@pytest.mark.parametrize("end", [RuntimeError, KeyboardInterrupt])
def test_a_training_cut_short_leaves_a_trained_model_as_it_was(make_adata, train, end, capsys):
    class Stop(pl.Callback):
        def on_train_batch_end(self, *_):
            raise end("enough")

    adata = make_adata()
    model = train(adata, max_steps=100)
    before = model.impute(adata, missing="all", inplace=False)
    heard = signal.getsignal(signal.SIGINT)
    with pytest.raises(end):
        model.train(10, callbacks=Stop(), enable_progress_bar=False, accelerator="cpu")
    assert signal.getsignal(signal.SIGINT) == heard  # the next Ctrl-C counts, too
    assert "NameError" not in capsys.readouterr().out
    np.testing.assert_array_equal(model.impute(adata, missing="all", inplace=False), before)


def test_a_training_within_another_one(make_adata, train):
    class Another(pl.Callback):
        def on_train_end(self, *_):
            train(make_adata(seed=1), max_steps=2)

    model = CountsDiffImputer(make_adata(), width=8)
    model.train(2, callbacks=Another(), enable_progress_bar=False)
    assert model.is_trained


def test_seeds_may_come_from_numpy(make_adata):
    adata = make_adata()
    models = [fit(adata, seed=seed, max_steps=3) for seed in (5, np.int64(5))]
    assert all(map(torch.equal, *map(weights, models)))
    for seed in (-1, 2**32, 1.0, True):
        with pytest.raises(ValueError, match="seed is a whole number between 0 and 4294967295; got"):
            models[0].train(3, seed=seed)
        with pytest.raises(ValueError, match="seed is a whole number between 0 and 4294967295; got"):
            models[0].impute(output="sample", seed=seed, inplace=False)


def test_a_learning_rate_that_explodes_leaves_the_weights_of_the_start(make_adata):
    model = CountsDiffImputer(make_adata(), width=32)
    start = [p.clone() for p in model.module.denoiser.parameters()]
    with pytest.raises(ValueError, match=r"The loss is (nan|inf) at step \d+: train with a smaller lr than 1e\+30"):
        model.train(30, lr=1e30, batch_size=32, enable_progress_bar=False)
    assert all(map(torch.equal, model.module.denoiser.parameters(), start))
    model.train(30, batch_size=32, enable_progress_bar=False)  # and is ready for another try
    assert np.isfinite(model.impute(missing="all", inplace=False)).all()


@pytest.mark.parametrize(("n_obs", "n_vars", "scale"), [(90, 30, 1e5), (90, 1, 1), (1, 30, 1), (1, 1, 1), (7, 30, 1)])
def test_extreme_data(make_adata, n_obs, n_vars, scale):
    adata = make_adata(n_obs=n_obs, n_vars=n_vars)
    adata.X = adata.X * np.float32(scale)
    assert scale == 1 or adata.X.max() > 1e6
    counts = adata.X.toarray()
    adata.layers["hidden"] = np.random.default_rng(0).random(adata.shape) < 0.3
    adata.layers["hidden"][0, 0] = True
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = fit(adata, max_steps=100)
    assert np.isfinite(model.history["train_loss"].to_numpy(float)).all()
    for output in ("mean", "sample"):
        imputed, hidden = model.impute(output=output, inplace=False), adata.layers["hidden"]
        np.testing.assert_array_equal(imputed[~hidden], counts[~hidden])
        assert np.isfinite(imputed).all()
        assert (imputed >= 0).all()
    if n_obs == 90 and n_vars > 1:
        mean = model.impute(inplace=False)[adata.layers["hidden"]]
        assert mean.sum() / counts[adata.layers["hidden"]].sum() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("head", ["rate", "x0"])
def test_other_heads_impute(make_adata, hidden, train, head):
    adata = make_adata()
    adata.layers["hidden"] = hidden
    model = train(adata, missing_layer="hidden", model_kwargs={"head": head}, max_steps=200)
    mean = model.impute(inplace=False)[hidden]
    for n_steps in (1, 20):
        draws = model.impute(output="sample", n_samples=20, n_steps=n_steps, inplace=False)[:, hidden]
        np.testing.assert_array_equal(draws, np.round(draws))
        assert draws.sum() / (20 * mean.sum()) == pytest.approx(1.0, abs=0.03)
    denoised = model.denoise(inplace=False)  # observed entries, too
    assert denoised[~hidden].sum() == pytest.approx(adata.X.toarray()[~hidden].sum(), rel=0.15)


def test_unknown_settings_are_named(make_adata):
    for option in ("head", "schedule", "weight"):
        with pytest.raises(ValueError, match="no-such-thing"):
            CountsDiffImputer(make_adata(), **{option: "no-such-thing"})


def test_labels_inform(make_adata, train):
    adata = make_adata(n_obs=300)
    hidden = np.zeros(adata.shape, bool)
    hidden[:, :] = True  # nothing known of a cell but its label
    model = train(adata, labels_key="kind", max_steps=400)
    imputed = model.impute(missing=hidden, inplace=False)
    counts, kind = adata.X.toarray(), adata.obs["kind"].to_numpy()
    for label in ("a", "b"):
        other = {"a": "b", "b": "a"}[label]
        mine = np.corrcoef(imputed[kind == label].mean(0), counts[kind == label].mean(0))[0, 1]
        theirs = np.corrcoef(imputed[kind == label].mean(0), counts[kind == other].mean(0))[0, 1]
        assert mine > max(theirs, 0.5)


def test_size_factors_and_unknown_covariates(make_adata, train):
    adata = make_adata()
    adata.obs["size"] = np.asarray(adata.X.sum(1)).ravel() / 60 + 0.1
    model = train(adata, size_factor_key="size", continuous_covariate_keys=["age"], max_steps=12)
    _, continuous = model.module.covariates(next(iter(model._make_data_loader(adata=adata, batch_size=90))))
    np.testing.assert_allclose(continuous[:, -1], np.log(adata.obs["size"]), rtol=1e-5)
    np.testing.assert_allclose(continuous[:, 0].mean(), 0, atol=1e-5)
    adata.obs["age"] = np.nan
    assert np.isfinite(model.impute(adata, missing="all", inplace=False)).all()


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_hides_the_share_it_is_told_to(make_adata, hidden, monkeypatch, share):
    adata = make_adata()
    adata.layers["hidden"] = hidden
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = CountsDiffImputer(adata, width=32)
    seen = []

    def watch(x_t, p, context):
        seen.append(context)
        return forward(x_t, p, context)

    forward = model.module.denoiser.forward
    monkeypatch.setattr(model.module.denoiser, "forward", watch)
    model.train(20, batch_size=32, enable_progress_bar=False, share_hidden=share)
    noised, known = (sum(float(getattr(c, state).sum()) for c in seen) for state in ("noised", "known"))
    assert noised / (noised + known) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("share", [None, 0.25, 0.4, 0.7, 0.9, 1.0])
def test_validation_hides_the_share_that_training_does_and_asks_for_every_entry_once(make_adata, hidden, share):
    adata = make_adata()
    adata.layers["hidden"] = hidden
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden")
    model = CountsDiffImputer(adata, width=32)
    tensors = next(iter(model._make_data_loader(adata=adata, batch_size=90)))
    shares, asked = [], np.zeros(adata.shape)
    forward = model.module.averaged.module.forward

    def watch(x_t, p, context):
        shares.append(float(context.noised.sum() / (context.noised | context.known).sum()))
        return forward(x_t, p, context)

    model.module.averaged.module.forward = watch
    for _, entries, _ in model.module.impute_folds(tensors, torch.Generator().manual_seed(0), share):
        asked += entries.numpy()
    np.testing.assert_array_equal(asked, ~hidden)
    assert shares == pytest.approx([share or 0.2] * len(shares), abs=0.05)


@pytest.mark.parametrize("callbacks", [None, pl.Callback(), [pl.Callback()]])
def test_callbacks_come_alone_or_in_a_list(make_adata, callbacks):
    model = fit(make_adata(), max_steps=2, callbacks=callbacks, num_sanity_val_steps=1)
    assert model.trainer.global_step == 2


def test_a_share_of_nothing_is_refused(make_adata):
    with pytest.raises(ValueError, match=r"share_hidden is a share of the entries in \(0, 1\]; got 0"):
        fit(make_adata(), share_hidden=0.0)


@pytest.mark.parametrize("batch_size", [0, -5])
def test_batches_have_cells(trained, batch_size):
    for verb in (trained.train, trained.impute):
        with pytest.raises(ValueError, match=f"batch_size is a whole number, at least 1; got {batch_size}"):
            verb(batch_size=batch_size)
