"""What to worry about, in plain words."""

from collections.abc import Iterator
from typing import NamedTuple

from ._findings import OURS, Calibration, DataSummary, Findings, LabelFinding

FEW_CELLS = 1_000
FEW_MOLECULES = 200  # held out; below this all scores are a matter of luck
TOO_MANY = 0.1  # predicted beyond what was counted, over all entries
TOO_MANY_IN_LABEL = 0.25
MOLECULES_OF_LABEL = 200  # held out in a label that is judged
MOSTLY_FILLED = 0.5
TOO_SURE = 0.03  # counts outside their intervals beyond those promised
PIT_FAR = 0.05
INVENTED = 0.05  # correlation beyond chance
SAME_DEPTH = 0.05
NO_ONES = 0.5


class Caution(NamedTuple):
    """A warning: its name, a title, and what it means and what to do."""

    name: str
    title: str
    text: str


def cautions(findings: Findings) -> list[Caution]:
    """Judge the findings; what is most likely to spoil conclusions comes first."""
    return [
        *_of_data(findings),
        *_of_accuracy(findings),
        *_of_amount(findings.calibration),
        *_of_labels(findings.labels),
        *_of_certainty(findings.calibration),
        *_of_null(findings),
    ]


def _of_data(findings: Findings) -> Iterator[Caution]:
    data = findings.data
    if cause := _normalised(data):
        yield Caution(
            "normalised",
            "These may not be raw counts",
            f"{cause} The model describes molecules as they were counted; on numbers that were scaled and rounded, its "
            "predictions and above all its certainty are wrong. Give the raw counts.",
        )
    if not findings.checked:
        yield Caution(
            "unchecked",
            "It could not be checked that the model is new to these cells",
            "It was loaded without its training data. If it was trained on these cells, everything below looks better "
            "than it is.",
        )
    if data.n_cells < FEW_CELLS:
        yield Caution(
            "few_cells",
            "Few cells",
            f"There are {data.n_cells:,} cells. With fewer than {FEW_CELLS:,} the model has little to learn from, and "
            "rare cell types hardly anything: compare it with the simple methods below, and look at intervals rather "
            "than at single numbers.",
        )


def _normalised(data: DataSummary) -> str | None:
    if data.depth_variation < SAME_DEPTH and data.n_cells > 1:
        return f"All cells have about the same total ({data.median_depth:,.0f}), which counts never do."
    if data.share_without_ones > NO_ONES:
        return f"In {data.share_without_ones:.0%} of the cells no gene has a count of 1, which raw counts are full of."
    return None


def _of_accuracy(findings: Findings) -> Iterator[Caution]:
    molecules = findings.held_out.truth.sum()
    if molecules < FEW_MOLECULES:
        yield Caution(
            "few_molecules",
            "Too little was held out to judge by",
            f"The held-out entries hold {molecules:,.0f} molecules in all. The scores below are largely luck.",
        )
    ours = findings.ours
    for rival in findings.scores[1:]:
        lost = [
            name
            for name, worse in (
                ("R²", ours.r2 < rival.r2),
                ("the Poisson loss", ours.poisson_loss > rival.poisson_loss),
            )
            if worse
        ]
        if lost:
            yield Caution(
                f"worse_than_{rival.method.split()[0]}",
                f"{rival.method[0].upper()}{rival.method[1:]} does better",
                f"By {' and '.join(lost)}, {rival.method} predicts the held-out counts of these data better than "
                f"{OURS} does. Train longer, give it more cells, or use the simpler method.",
            )


def _of_amount(calibration: Calibration) -> Iterator[Caution]:
    if calibration.relative_bias > TOO_MANY:
        yield Caution(
            "over_imputation",
            "Too much is filled in",
            f"The predictions of the held-out entries add up to {calibration.relative_bias:.0%} more molecules than "
            "were counted there. Imputed values are too high on average.",
        )
    elif calibration.relative_bias < -TOO_MANY:
        yield Caution(
            "under_imputation",
            "Too little is filled in",
            f"The predictions of the held-out entries add up to {-calibration.relative_bias:.0%} fewer molecules than "
            "were counted there. Imputed values are too low on average.",
        )


def _of_labels(labels: tuple[LabelFinding, ...]) -> Iterator[Caution]:
    for label in labels:
        if label.share_filled > MOSTLY_FILLED:
            yield Caution(
                "mostly_filled",
                f"Most zeros of {label.label} are filled",
                f"In {label.label}, {label.share_filled:.0%} of the zeros become half a count or more. Most zeros of "
                "single-cell data are true: a gene that is off, or on too weakly to be caught. Distrust genes that "
                "appear here only after imputation.",
            )
    for label in labels if len(labels) > 1 else ():
        if label.counted >= MOLECULES_OF_LABEL and label.predicted > (1 + TOO_MANY_IN_LABEL) * label.counted:
            yield Caution(
                "over_imputation_in_label",
                f"Too much is filled in in {label.label}",
                f"The predictions of the held-out entries of {label.label} add up to "
                f"{label.predicted / label.counted - 1:.0%} more molecules than were counted there.",
            )


def _of_certainty(calibration: Calibration) -> Iterator[Caution]:
    if calibration.coverage < calibration.promised - TOO_SURE:
        yield Caution(
            "too_sure",
            "The model is too sure of itself",
            f"{calibration.coverage:.1%} of the held-out counts lie within their intervals, where "
            f"{calibration.promised:.1%} were promised. Take intervals and samples for narrower than the truth.",
        )
    if calibration.pit_ks > PIT_FAR:
        yield Caution(
            "poor_calibration",
            "Predicted and counted values are spread differently",
            f"The histogram of places below departs from flat by {calibration.pit_ks:.3f}, where a sound prediction "
            f"stays below {PIT_FAR}. Probabilities, intervals and samples are off by about as much.",
        )


def _of_null(findings: Findings) -> Iterator[Caution]:
    null = findings.null
    invented = [o for o in null.outputs[1:] if o.permuted > null.chance + INVENTED]
    if invented:
        names = ", ".join(f"{o.output} ({o.permuted:.2f})" for o in invented)
        yield Caution(
            "invented_correlation",
            "Some outputs show gene-gene correlation where there is none",
            f"Made of counts in which no two genes have anything to do with each other: {names}, where chance gives "
            f"{null.chance:.2f}. Do not look for co-expression or networks in these outputs, nor test genes with them; "
            "use the raw counts, or several samples.",
        )
