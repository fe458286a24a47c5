import numpy as np
import pytest
from scipy import stats

from countsdiff import report


@pytest.fixture(scope="session")
def make_held_out():
    """Held-out entries of 100 cells × 60 genes, with the very law they were drawn from as prediction."""

    def make(share: float = 0.3, seed: int = 0) -> report.HeldOut:
        rng = np.random.default_rng(seed)
        rows, columns = np.nonzero(rng.random((100, 60)) < share)
        mean, shape = rng.gamma(0.5, 4.0, len(rows)) + 1e-3, 2.0
        law = stats.nbinom(shape, shape / (shape + mean))
        return report.HeldOut(
            rows,
            columns,
            (100, 60),
            law.rvs(random_state=rng).astype(float),
            mean,
            law.std(),
            law.ppf(0.05),
            law.ppf(0.95),
            0.9,
        )

    return make


@pytest.fixture
def findings(make_held_out) -> report.Findings:
    """Findings that give no cause for a caution."""
    held_out = make_held_out()
    labels = [report.LabelFinding(name, 50, 1000, n, 900.0, 910.0) for name, n in (("T & B <cells>", 40), ("NK", 15))]
    return report.Findings(
        data=report.DataSummary(2_000, 60, 0, 2_345.0, 0.5, 0.4, 0.0),
        held_out=held_out,
        scores=(
            report.Score("countsdiff", 0.81234, 1.5, 0.1, 0.7),
            report.Score("size-factor mean", 0.31234, 2.5, 0.5, 0.2),
            report.Score("kNN smoothing", 0.61234, 2.0, 0.3, 0.6),
        ),
        calibration=report.calibrate(held_out),
        labels=tuple(labels),
        null=report.NullCheck(
            500, 60, 0.036, (report.Invented("counts", 0.1, 0.036), report.Invented("mean", 0.3, 0.05))
        ),
        checked=True,
        settings={"model": "a model", "file": "in <file>.h5ad"},
    )
