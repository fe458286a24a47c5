from dataclasses import replace

import numpy as np
import pytest

from countsdiff import report


def names(findings):
    return [caution.name for caution in report.cautions(findings)]


def test_good_findings_give_none(findings):
    assert names(findings) == []


def of_data(findings, **changes):
    return replace(findings, data=replace(findings.data, **changes))


def of_calibration(findings, **changes):
    return replace(findings, calibration=replace(findings.calibration, **changes))


def of_score(findings, i, **changes):
    scores = list(findings.scores)
    scores[i] = replace(scores[i], **changes)
    return replace(findings, scores=tuple(scores))


def of_label(findings, **changes):
    return replace(findings, labels=(replace(findings.labels[0], **changes), *findings.labels[1:]))


def of_null(findings, permuted):
    counts, mean = findings.null.outputs
    return replace(findings, null=replace(findings.null, outputs=(counts, replace(mean, permuted=permuted))))


CASES = [
    (lambda f: of_data(f, n_cells=999), "few_cells"),
    (lambda f: of_data(f, depth_variation=0.01), "normalised"),
    (lambda f: of_data(f, share_without_ones=0.6), "normalised"),
    (lambda f: replace(f, checked=False), "unchecked"),
    (lambda f: replace(f, held_out=replace(f.held_out, truth=np.zeros_like(f.held_out.truth))), "few_molecules"),
    (lambda f: of_score(f, 1, r2=0.9), "worse_than_size-factor"),
    (lambda f: of_score(f, 2, poisson_loss=0.05), "worse_than_kNN"),
    (lambda f: of_calibration(f, relative_bias=0.11), "over_imputation"),
    (lambda f: of_calibration(f, relative_bias=-0.11), "under_imputation"),
    (lambda f: of_calibration(f, coverage=f.calibration.promised - 0.04), "too_sure"),
    (lambda f: of_calibration(f, pit_ks=0.06), "poor_calibration"),
    (lambda f: of_label(f, n_filled=501), "mostly_filled"),
    (lambda f: of_label(f, predicted=1200.0), "over_imputation_in_label"),
    (lambda f: of_null(f, 0.2), "invented_correlation"),
]


@pytest.mark.parametrize(("change", "name"), CASES, ids=[f"{i}-{name}" for i, (_, name) in enumerate(CASES)])
def test_each_cause_gives_its_caution_and_no_other(findings, change, name):
    assert names(change(findings)) == [name]


NEAR = [
    lambda f: of_data(f, n_cells=1_000),
    lambda f: of_data(f, depth_variation=0.06, share_without_ones=0.5),
    lambda f: of_calibration(f, relative_bias=0.09, coverage=f.calibration.promised - 0.02, pit_ks=0.04),
    lambda f: of_score(f, 1, rmse=0.1),
    lambda f: of_label(f, n_filled=500, predicted=1100.0),
    lambda f: of_label(f, counted=10.0, predicted=30.0),
    lambda f: of_null(f, 0.08),
]


@pytest.mark.parametrize("change", NEAR)
def test_short_of_its_cause_there_is_no_caution(findings, change):
    assert names(change(findings)) == []


def test_one_caution_names_all_scores_that_are_lost(findings):
    (caution,) = report.cautions(of_score(findings, 2, r2=0.9, poisson_loss=0.05))
    assert "R² and the Poisson loss" in caution.text
