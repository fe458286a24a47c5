from dataclasses import replace

import pytest
import torch
from torch import nn

from countsdiff.core import Backbone, Context, Denoiser, FactorModel
from countsdiff.core.interfaces import Evidence
from countsdiff.nn import GeneMLP, GeneTransformer, adopted_state, get_backbone

N_VARS = 5


@pytest.fixture(params=[GeneMLP, GeneTransformer])
def backbone(request):
    """Class of a backbone."""
    return request.param


def untrained(backbone, **settings) -> nn.Module:
    torch.manual_seed(0)
    return backbone(N_VARS, [3, 2], 1, **{"n_factors": 3, "width": 16, "dropout": 0.5, **settings})


@pytest.fixture
def network(backbone) -> nn.Module:
    """A network past its zero start, with dropout."""
    network = untrained(backbone)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_it_has_nothing_to_add_at_the_start(backbone, depth, make_evidence):
    network = untrained(backbone, depth=depth)
    assert isinstance(network, Backbone)
    for output in network(make_evidence(7, N_VARS)):
        assert torch.equal(output, torch.zeros(7, N_VARS))


def test_mlp_blocks_start_as_the_identity(make_evidence):
    # depth adds nothing before training: a trunk gives the same answer with and without its blocks
    deep, shallow = untrained(GeneMLP, depth=3).eval(), untrained(GeneMLP, depth=0).eval()
    shallow.load_state_dict(deep.state_dict(), strict=False)
    for network in (deep, shallow):
        nn.init.ones_(network.log_mean.weight[:, :3])
    evidence = make_evidence(4, N_VARS)
    deep_mean, shallow_mean = deep(evidence)[0], shallow(evidence)[0]
    assert bool(deep_mean.any())
    torch.testing.assert_close(deep_mean, shallow_mean)


def test_dropout_is_for_training_only(network, make_evidence):
    evidence = make_evidence(4, N_VARS)
    first, second = network(evidence)[0], network(evidence)[0]
    assert torch.equal(first, second)
    network.train()
    torch.manual_seed(0)
    assert not torch.equal(network(evidence)[0], network(evidence)[0])


def test_a_row_does_not_depend_on_the_others(network, make_evidence):
    ours, others = make_evidence(6, N_VARS), make_evidence(6, N_VARS, seed=1)
    tensors = [name for name, value in vars(ours).items() if isinstance(value, torch.Tensor)]
    mixed = {name: torch.cat([vars(ours)[name][:2], vars(others)[name][2:]]) for name in tensors}
    for alone, together in zip(network(ours), network(replace(ours, **mixed)), strict=True):
        torch.testing.assert_close(alone[:2], together[:2], rtol=1e-6, atol=1e-6)
        assert not torch.allclose(alone[2:], together[2:], atol=1e-3)


@pytest.mark.parametrize("unknown", ["categories", "continuous"])
def test_covariates_matter_and_may_be_unknown(unknown, network, make_evidence):
    evidence = make_evidence(6, N_VARS)
    values = vars(evidence)[unknown]
    null = torch.full_like(values, -1 if unknown == "categories" else float("nan"))
    known, nulled = network(evidence)[0], network(replace(evidence, **{unknown: null}))[0]
    assert bool(nulled.isfinite().all())
    assert bool(((known - nulled).abs().amax(1) > 1e-4).all())


def test_the_null_token_is_what_without_covariates_gives(network):
    # rows trained with covariates dropped (−1, NaN) are what guidance asks for when it asks without covariates
    counts = torch.poisson(torch.full((4, N_VARS), 2.0), generator=torch.Generator().manual_seed(0))
    everything = torch.ones(4, N_VARS, dtype=torch.bool)
    codes, values = torch.tensor([[0, 1], [2, 0], [1, 1], [0, 0]]), torch.randn(4, 1)
    context = Context(counts, everything, ~everything, codes, values)
    dropped = replace(context, categories=torch.full((4, 2), -1), continuous=torch.full((4, 1), float("nan")))
    factors = FactorModel(torch.arange(N_VARS), torch.randn(N_VARS, 3), torch.ones(N_VARS))
    denoiser = Denoiser(network, torch.ones(N_VARS), torch.ones(N_VARS), factors=factors)
    x_t, p = torch.zeros(4, N_VARS), torch.zeros(4, 1)
    trained, asked = denoiser(x_t, p, dropped), denoiser(x_t, p, context.without_covariates())
    assert torch.equal(trained.mean, asked.mean)
    assert torch.equal(trained.shape, asked.shape)
    assert not torch.allclose(asked.mean, denoiser(x_t, p, context).mean, atol=1e-3)


def test_unknown_covariates_leave_gradients_finite(network, make_evidence):
    evidence = replace(make_evidence(3, N_VARS), continuous=torch.full((3, 1), float("nan")))
    mean, shape = network(evidence)
    (mean.sum() + shape.sum()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())


def test_factors_reach_every_gene(network, make_evidence):
    evidence = make_evidence(6, N_VARS)
    others = replace(evidence, factors=evidence.factors + 1.0)
    assert bool(((network(evidence)[0] - network(others)[0]).abs() > 1e-5).all())


def test_it_works_without_covariates(backbone, make_evidence):
    torch.manual_seed(0)
    network = backbone(N_VARS, n_factors=3, width=16).eval()
    nn.init.normal_(network.log_mean.weight)
    evidence = make_evidence(3, N_VARS)
    bare = replace(evidence, categories=evidence.categories[:, :0], continuous=evidence.continuous[:, :0])
    mean, shape = network(bare)
    assert mean.shape == shape.shape == (3, N_VARS)
    assert bool(mean.isfinite().all() & mean.any())


def test_the_shape_head_leaves_the_trunk_alone(network, make_evidence):
    network(make_evidence(3, N_VARS))[1].sum().backward()
    touched = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert touched == {"log_shape.weight", "log_shape.bias"}


def test_transformer_treats_genes_alike(make_evidence):
    # genes in another order, with all that belongs to a gene: the same answers in that order
    torch.manual_seed(0)
    network = GeneTransformer(N_VARS, [3, 2], 1, n_factors=3, width=16).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    evidence, order = make_evidence(6, N_VARS), torch.tensor([3, 0, 4, 1, 2])
    answers = network(evidence)
    with torch.no_grad():
        for own in (network.genes, *network.log_mean.parameters(), *network.log_shape.parameters()):
            own.copy_(own[order])
    moved = replace(evidence, log_ratio=evidence.log_ratio[:, order], exposure=evidence.exposure[:, order])
    for before, after in zip(answers, network(moved), strict=True):
        torch.testing.assert_close(after, before[:, order], rtol=1e-5, atol=1e-5)


def test_transformer_lets_genes_see_each_other(make_evidence):
    torch.manual_seed(0)
    network = GeneTransformer(N_VARS, [3, 2], 1, n_factors=3, width=16).eval()
    nn.init.normal_(network.log_mean.weight)
    evidence = make_evidence(6, N_VARS)
    changed = replace(evidence, log_ratio=evidence.log_ratio.clone())
    changed.log_ratio[:, 2] += 1.0
    assert bool(((network(evidence)[0] - network(changed)[0]).abs() > 1e-5).all())


def test_backbones_by_name():
    assert isinstance(get_backbone("mlp", N_VARS, [3], 0, width=None, depth=1), GeneMLP)
    transformer = get_backbone("transformer", N_VARS, [3], 0, width=32, depth=None)
    assert isinstance(transformer, GeneTransformer)
    assert (transformer.width, len(transformer.blocks)) == (32, 3)
    with pytest.raises(ValueError, match="'cnn'; choose one of mlp, transformer"):
        get_backbone("cnn", N_VARS, [], 0)
    with pytest.raises(ValueError, match="multiple of 16; got 40"):
        get_backbone("transformer", N_VARS, [], 0, width=40)


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_adopted_weights_answer_as_the_reference(name, generator):
    n_obs, n_vars = 7, 12
    reference = get_backbone(name, n_vars, [2, 3], 1, n_factors=2, width=16, depth=1).eval()
    for weight in reference.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 4
    wider = get_backbone(name, n_vars, [2, 5], 1, n_factors=2, width=16, depth=1).eval()
    wider.load_state_dict(adopted_state(wider, reference, [0, 1]))

    def answer(backbone, codes):
        torch.manual_seed(0)
        shown = torch.randn(n_obs, n_vars), torch.rand(n_obs, n_vars), torch.randn(n_obs, 3)
        base, factors = torch.ones(n_obs, n_vars), torch.randn(n_obs, 2)
        return backbone(Evidence(*shown, codes, torch.ones(n_obs, 1), base, factors))[0]

    codes = torch.stack([torch.arange(n_obs) % 2, torch.arange(n_obs) % 4 - 1], dim=1)
    torch.testing.assert_close(answer(wider, codes), answer(reference, codes), rtol=0, atol=0)
    new = torch.where(codes < 0, 4, codes)  # a category that the reference does not know
    torch.testing.assert_close(answer(wider, new), answer(reference, codes), rtol=0, atol=0)
