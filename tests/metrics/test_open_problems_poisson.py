import numpy as np
import pytest
from scipy import sparse

from countsdiff.metrics import open_problems_poisson


def test_arguments_are_exchanged():
    x, y = np.array([[0.0, 2.0]]), np.array([[0.5, 3.0]])
    expected = np.mean([0.0 - 0.5 * np.log(1e-6), 2.0 - 3.0 * np.log(2.0 + 1e-6)])
    assert open_problems_poisson(x, y) == pytest.approx(expected)


def test_predicting_nothing_beats_the_truth():
    # the defect it is kept for
    rates = np.random.default_rng(0).gamma(0.2, 1.0, (50, 40))
    x = np.random.default_rng(1).poisson(rates)
    assert open_problems_poisson(x, 0.01 * rates) < open_problems_poisson(x, rates)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(2, 1\)"):
        open_problems_poisson(np.ones((1, 2)), np.ones((2, 1)))


def test_sparse_matrices_are_as_good():
    test, denoised = np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([[0.5, 1.0], [0.0, 0.3]])
    expected = open_problems_poisson(test, denoised)
    assert open_problems_poisson(sparse.csr_matrix(test), sparse.csr_matrix(denoised)) == expected
