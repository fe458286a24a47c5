import numpy as np
import pytest
import torch

from countsdiff.core import Denoiser, FactorModel, thin

N_VARS, N_FACTORS = 12, 3


@pytest.fixture
def model() -> FactorModel:
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(N_VARS, N_FACTORS, generator=generator)
    return FactorModel(torch.arange(N_VARS), loadings, 0.5 + torch.rand(N_VARS, generator=generator))


def draw(model: FactorModel, n_obs: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n_obs, model.n_factors, generator=generator)
    noise = torch.randn(n_obs, len(model.noise), generator=generator) * model.noise.sqrt()
    return factors @ model.loadings.T + noise


def test_factors_are_the_conditional_means_of_the_joint_normal_law(model):
    exposure = torch.tensor([1.0, 0.4, 0.0])[torch.arange(N_VARS) % 3]
    z = torch.randn(N_VARS, generator=torch.Generator().manual_seed(1)) * (exposure > 0)
    at = exposure > 0
    loadings, noise, z_seen = (v[at].double().numpy() for v in (model.loadings, model.noise, z))
    e = exposure[at].double().numpy()
    # z / e, of noise ψ / e, is what was seen: E[f | seen] = Wᵀ (W Wᵀ + D)⁻¹ z / e
    law = loadings @ loadings.T + np.diag(noise / e)
    expected = loadings.T @ np.linalg.solve(law, z_seen / e)
    np.testing.assert_allclose(model(z[None], exposure[None])[0].numpy(), expected, rtol=1e-4)


def test_nothing_seen_is_nothing_known(model):
    nothing = torch.zeros(2, N_VARS)
    assert torch.equal(model(nothing, nothing), torch.zeros(2, N_FACTORS))


def test_rows_do_not_depend_on_each_other(model):
    z, exposure = draw(model, 64), torch.rand(64, N_VARS, generator=torch.Generator().manual_seed(2))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model(z, exposure)[order], model(z[order], exposure[order]))


@pytest.mark.parametrize("n_used", [1, 5, 10, 17])
def test_rows_are_the_same_to_the_last_bit_wherever_they_stand(n_used):
    generator = torch.Generator().manual_seed(0)
    loadings = torch.zeros(30, 32)
    loadings[:, :n_used] = torch.randn(30, n_used, generator=generator)
    model = FactorModel(torch.arange(30), loadings, torch.ones(30))
    z, exposure = torch.randn(256, 30, generator=generator), torch.rand(256, 30, generator=generator)
    order = torch.randperm(256, generator=generator)
    assert torch.equal(model(z, exposure)[order], model(z[order], exposure[order]))


def test_only_the_chosen_variables_are_looked_at(model):
    few = FactorModel(torch.tensor([1, 4]), model.loadings[[1, 4]], model.noise[[1, 4]])
    z = draw(model, 5)
    seen = torch.zeros(5, N_VARS)
    seen[:, [1, 4]] = 1.0
    torch.testing.assert_close(few(z, torch.ones(5, N_VARS)), model(z * seen, seen))


@pytest.mark.parametrize("share_missing", [0.0, 0.4])
def test_fit_finds_the_covariance(model, share_missing):
    z = draw(model, 40_000)
    seen = (torch.rand(z.shape, generator=torch.Generator().manual_seed(4)) >= share_missing).float()
    blocks = zip((z * seen).split(7_000), seen.split(7_000), strict=True)
    fitted = FactorModel.fit(torch.arange(N_VARS), N_FACTORS, blocks, torch.Generator().manual_seed(5))
    torch.testing.assert_close(fitted.noise, model.noise, rtol=0.15, atol=0.05)
    torch.testing.assert_close(
        fitted.loadings @ fitted.loadings.T, model.loadings @ model.loadings.T, rtol=0.1, atol=0.15
    )


# the law is for complete data; missing entries leave covariances of unequal noise
@pytest.mark.parametrize(("share_missing", "tolerance"), [(0.0, 0.1), (0.3, 0.3)])
def test_few_observations_find_the_true_variance_along_vectors_that_noise_has_turned(share_missing, tolerance):
    n_vars, n_obs, strengths = 400, 150, torch.tensor([40.0, 20.0])
    generator = torch.Generator().manual_seed(0)
    found, true = torch.zeros(2), torch.zeros(2)
    for _ in range(10):  # or the variance of these very factors would decide
        truth = torch.linalg.qr(torch.randn(n_vars, 2, generator=generator)).Q * strengths.sqrt()
        z = torch.randn(n_obs, 2, generator=generator) @ truth.T + torch.randn(n_obs, n_vars, generator=generator)
        seen = (torch.rand(z.shape, generator=generator) >= share_missing).float()
        loadings = FactorModel.fit(torch.arange(n_vars), 6, [(z * seen, seen)], generator).loadings
        variances = loadings.square().sum(0)
        assert int((variances > 0).sum()) == 2  # and none that chance makes
        found += variances[:2]
        true += ((loadings[:, :2] / variances[:2].sqrt()).T @ truth).square().sum(1)
    assert bool((true < 0.95 * 10 * strengths).all())  # the vectors are those of the sample
    torch.testing.assert_close(found, true, rtol=tolerance, atol=0.0)


def test_fit_of_fewer_variables_than_factors_leaves_the_rest_empty():
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    fitted = FactorModel.fit(torch.arange(2), 5, [(z, torch.ones(50, 2))], torch.Generator().manual_seed(0))
    assert fitted.n_factors == 5
    assert not bool(fitted.loadings[:, 2:].any())
    assert bool(fitted(z, torch.ones(50, 2)).isfinite().all())


def test_fit_of_nothing_is_empty():
    # no cell, and no cell with anything seen in it
    for blocks in ([], [(torch.zeros(3, 4), torch.zeros(3, 4))]):
        fitted = FactorModel.fit(torch.arange(4), 2, blocks, torch.Generator().manual_seed(0))
        assert torch.equal(fitted(torch.ones(1, 4), torch.ones(1, 4)), torch.zeros(1, 2))


def test_numbers_that_are_none_stay_so_without_an_error(model):
    # training stops by its loss, with the cause
    z = torch.full((1, N_VARS), torch.nan)
    assert bool(model(z, torch.ones(1, N_VARS)).isnan().all())


def test_factors_that_nothing_loads_on_change_nothing(model):
    z, exposure = draw(model, 20), torch.rand(20, N_VARS, generator=torch.Generator().manual_seed(2))
    padded = FactorModel.empty(N_VARS, N_FACTORS + 4)
    loadings = torch.cat([model.loadings, torch.zeros(N_VARS, 4)], dim=1)
    padded.load_state_dict({**model.state_dict(), "loadings": loadings})
    torch.testing.assert_close(padded(z, exposure), torch.cat([model(z, exposure), torch.zeros(20, 4)], dim=1))
    # nor does an unused one before used ones
    first = FactorModel(model.variables, loadings.flip(1), model.noise)
    torch.testing.assert_close(first(z, exposure), padded(z, exposure).flip(1))


@pytest.mark.parametrize("mean", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize("p", [0.5, 0.1, 0.02])
def test_factors_of_noised_counts_are_no_larger_than_those_of_the_whole(mean, p, generator, make_context):
    # a posterior mean given less is closer to 0; with the bare exposure slopes were 4.6 and 40 (mean 10 and 1000)
    n_obs, n_vars = 2000, 60
    truth = torch.randn(n_obs, 1, generator=generator)
    counts = torch.poisson(mean * torch.exp(0.7 * truth).expand(n_obs, n_vars), generator=generator)
    factors = FactorModel(torch.arange(n_vars), torch.full((n_vars, 1), 0.5), torch.full((n_vars,), 0.5))
    seen = []

    def backbone(evidence):
        seen.append(evidence.factors[:, 0])
        return torch.zeros_like(evidence.log_ratio), torch.zeros_like(evidence.log_ratio)

    denoiser = Denoiser(backbone, counts.mean(0), torch.ones(n_vars), factors=factors, size_factors=False)
    context = make_context(n_obs, n_vars)
    for share in (1.0, p):
        denoiser(thin(counts, share, generator), torch.full((n_obs, 1), share), context)
    whole, part = seen
    slope = float((whole * part).sum() / whole.square().sum())
    assert 0.05 < slope < 1.05
