import pytest
import torch

from countsdiff.core.masks import as_numbers, only


@pytest.mark.parametrize("view", [lambda m: m, lambda m: m.T, lambda m: m[:, ::2], lambda m: m[:1].expand(4, -1)])
def test_numbers_are_those_of_the_mask(view):
    mask = view(torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.5)
    numbers = as_numbers(mask)
    assert numbers.dtype == torch.float32
    assert torch.equal(numbers, torch.where(mask, 1.0, 0.0))


def test_what_is_masked_may_be_anything():
    values = torch.tensor([[1.0, torch.nan, 3.0], [torch.inf, 5.0, -torch.inf]])
    mask = torch.tensor([[True, False, False], [False, True, False]])
    assert torch.equal(only(values, mask), torch.tensor([[1.0, 0.0, 0.0], [0.0, 5.0, 0.0]]))
