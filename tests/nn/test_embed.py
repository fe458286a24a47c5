import pytest
import torch
from torch import nn

from countsdiff.nn.embed import CovariateEmbedding, FiLM


@pytest.fixture
def embedding() -> CovariateEmbedding:
    torch.manual_seed(0)
    return CovariateEmbedding([3, 2], n_continuous=2, dim=4)


def test_features_are_rows_of_the_tables_values_and_flags(embedding):
    features = embedding(torch.tensor([[2, 0], [0, -1]]), torch.tensor([[1.5, float("nan")], [-2.0, 0.0]]))
    first, second = (table.weight for table in embedding.tables)
    expected = torch.stack(
        [
            torch.cat([first[2], second[0], torch.tensor([1.5, 0.0, 0.0, 1.0])]),
            torch.cat([first[0], second[2], torch.tensor([-2.0, 0.0, 0.0, 0.0])]),  # the last row of a table: unknown
        ]
    )
    assert embedding.n_features == features.shape[1] == 12
    assert torch.equal(features, expected)


def test_unknown_differs_from_every_category(embedding):
    codes = torch.tensor([[-1, -1], [0, 0], [1, 1], [2, 1]])
    features = embedding(codes, torch.zeros(4, 2))
    assert len(features[:, :4].unique(dim=0)) == 4
    assert len(features[:, 4:8].unique(dim=0)) == 3


def test_unknown_differs_from_the_average(embedding):
    # a standardised value of 0 is the mean, not a gap
    features = embedding(torch.zeros(2, 2, dtype=torch.int64), torch.tensor([[0.0, 0.0], [float("nan"), 0.0]]))
    assert not torch.equal(features[0], features[1])


def test_a_category_that_does_not_exist_is_an_error(embedding):
    with pytest.raises(IndexError):
        embedding(torch.tensor([[7, 0]]), torch.zeros(1, 2))


@pytest.mark.parametrize(("n_categories", "n_continuous", "n_features"), [([], 0, 0), ([], 1, 2), ([5], 0, 16)])
def test_either_kind_of_covariate_may_be_missing(n_categories, n_continuous, n_features):
    embedding = CovariateEmbedding(n_categories, n_continuous)
    features = embedding(torch.zeros(3, len(n_categories), dtype=torch.int64), torch.zeros(3, n_continuous))
    assert embedding.n_features == n_features
    assert features.shape == (3, n_features)


def test_film_starts_as_a_layer_norm():
    film, h = FiLM(3, 8), torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    for condition in (torch.zeros(5, 3), torch.full((5, 3), 100.0)):
        torch.testing.assert_close(film(h, condition), nn.functional.layer_norm(h, (8,)))


def test_film_scales_and_shifts():
    film, h = FiLM(1, 2), torch.tensor([[-1.0, 1.0]])
    with torch.no_grad():
        film.modulation.bias.copy_(torch.tensor([1.0, 2.0, 10.0, -10.0]))  # scales 1 + (1, 2), shifts (10, −10)
    torch.testing.assert_close(film(h, torch.zeros(1, 1)), torch.tensor([[8.0, -7.0]]), rtol=0, atol=1e-4)


def test_there_is_a_code_for_every_covariate(embedding):
    with pytest.raises(ValueError, match="2 categorical covariates; got codes of 1"):
        embedding(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 2))
