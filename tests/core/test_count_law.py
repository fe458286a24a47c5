import numpy as np
import pytest
import torch
from scipy import stats

from countsdiff.core import CountLaw

MEANS = np.array([0.0, 0.02, 0.9, 1.0, 1.7, 5.0, 16.5, 90.0, 700.0])


def laws(shape: float | None):
    """The laws of MEANS, as scipy has them and as we do."""
    theirs = stats.poisson(MEANS) if shape is None else stats.nbinom(shape, shape / (shape + MEANS))
    mean = torch.as_tensor(MEANS)
    return theirs, CountLaw(mean, None if shape is None else torch.full_like(mean, shape))


@pytest.mark.parametrize("coverage", [0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("shape", [None, 0.2, 1.0, 3.0, 200.0])
def test_interval_is_the_shortest_that_holds_enough(shape, coverage):
    theirs, ours = laws(shape)
    lower, upper = (ends.numpy() for ends in ours.shortest_interval(coverage))
    assert (theirs.cdf(upper) - theirs.cdf(lower - 1) >= coverage - 1e-9).all()
    start = np.arange(2_000.0)[:, None]  # of a run that is shorter by one, wherever it starts
    held = theirs.cdf(start + upper - lower - 1) - theirs.cdf(start - 1)
    assert (held.max(axis=0) < coverage).all()


def test_interval_is_no_wider_than_the_equal_tailed_one():
    _, law = laws(3.0)
    lower, upper = law.shortest_interval(0.9)
    width = law.quantile(torch.full_like(law.mean, 0.95)) - law.quantile(torch.full_like(law.mean, 0.05))
    assert bool((upper - lower <= width).all())
    assert bool((upper - lower < width).any())


def test_interval_has_the_shape_and_dtype_of_the_means():
    mean = torch.rand(3, 4) * 20.0
    for end in CountLaw(mean, torch.ones(3, 4)).shortest_interval(0.8):
        assert (end.shape, end.dtype) == (mean.shape, mean.dtype)


@pytest.mark.parametrize("coverage", [0.0, 1.0, 1.5, float("nan")])
def test_no_interval_holds_everything(coverage):
    with pytest.raises(ValueError, match="coverage is a share"):
        CountLaw(torch.ones(2)).shortest_interval(coverage)
