"""Findings as one page."""

from html import escape
from pathlib import Path
from string import Template

from ._cautions import Caution, cautions
from ._findings import Findings, LabelFinding, NullCheck, Score
from ._pictures import pictures

_MAX_LABELS = 40
_COLUMNS = (
    ("r2", "R²", "share of the variation explained", max),
    ("rmse", "RMSE", "typical error, in counts", min),
    ("poisson_loss", "Poisson loss", "error that treats small and large counts alike", min),
    ("spearman_per_cell", "Spearman", "order of the genes within a cell", max),
)
_OUTPUTS = {
    "counts": "the counts themselves",
    "mean": "mean (the default)",
    "log_mean": "log_mean",
    "sample": "one sample",
}
_PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def render(findings: Findings) -> str:
    """Write findings as one HTML page that needs nothing from anywhere else."""
    data, held_out, calibration = findings.data, findings.held_out, findings.calibration
    drawn = pictures(held_out, calibration)
    missing = f"{data.n_missing:,} entries are missing." if data.n_missing else "No entry is marked as missing."
    return _PAGE.substitute(
        data=f"{data.n_cells:,} cells × {data.n_genes:,} genes, {data.median_depth:,.0f} molecules in the median cell, "
        f"{data.share_zeros:.1%} zeros. {missing}",
        tiles=_tiles(findings),
        cautions=_cautions(cautions(findings)),
        n_entries=f"{len(held_out.truth):,}",
        n_cells=f"{held_out.n_cells:,}",
        subset=_subset(held_out.shape[0], data.n_cells),
        scores=_scores(findings.scores),
        interval=f"{calibration.interval:.0%}",
        promised=f"{calibration.promised:.1%}",
        coverage=f"{calibration.coverage:.1%}",
        zeros_predicted=f"{calibration.zeros_predicted:.1%}",
        zeros_counted=f"{calibration.zeros_counted:.1%}",
        recovery=drawn["recovery"],
        calibration=drawn["calibration"],
        coverage_plot=drawn["coverage"],
        pit=drawn["pit"],
        labels=_labels(findings.labels, data.n_missing),
        null=_null(findings.null),
        settings="".join(_row(_cell(name), _cell(value)) for name, value in findings.settings.items()),
    )


def _tiles(findings: Findings) -> str:
    best = max(findings.scores[1:], key=lambda score: score.r2)
    bias = findings.calibration.relative_bias
    tiles = [
        (f"{findings.ours.r2:.0%}", f"of the variation of hidden counts explained ({best.method}: {best.r2:.0%})"),
        (f"{bias:+.1%}", "molecules predicted, compared with those counted"),
        (
            f"{findings.calibration.coverage:.1%}",
            f"of hidden counts within their interval ({findings.calibration.promised:.1%} promised)",
        ),
    ]
    filled = sum(label.n_filled for label in findings.labels) / max(sum(label.n_zeros for label in findings.labels), 1)
    tiles.append((f"{filled:.1%}", "of the zeros are filled when zeros are imputed"))
    return "".join(f'<div class="tile"><b>{escape(n)}</b><span>{escape(text)}</span></div>' for n, text in tiles)


def _subset(n_looked_at: int, n_cells: int) -> str:
    if n_looked_at == n_cells:
        return ""
    return (
        f"To save time and memory, {n_looked_at:,} evenly spaced cells were looked at. The simple methods saw these "
        "alone, where the model was trained on all, which favours the model."
    )


def _cautions(found: list[Caution]) -> str:
    if not found:
        return '<p class="fine">Nothing. None of the checks below failed.</p>'
    return "".join(
        f'<div class="caution" data-name="{escape(c.name)}"><b>{escape(c.title)}.</b> {escape(c.text)}</div>'
        for c in found
    )


def _scores(scores: tuple[Score, ...]) -> str:
    best = {name: pick(getattr(score, name) for score in scores) for name, _, _, pick in _COLUMNS}
    head = "".join(
        f'<th class="n">{title} {"↑" if pick is max else "↓"}<small>{text}</small></th>'
        for _, title, text, pick in _COLUMNS
    )
    body = ""
    for i, score in enumerate(scores):
        values = {name: getattr(score, name) for name in best}
        cells = [_cell(f"{value:.4f}", "n best" if value == best[name] else "n") for name, value in values.items()]
        body += _row(_cell(score.method), *cells, kind="ours" if i == 0 else "plain")
    return (
        f'<table class="scores"><tr><th>Method</th>{head}</tr>{body}</table>'
        "<p><small>↑ higher is better, ↓ lower is better.</small></p>"
    )


def _labels(labels: tuple[LabelFinding, ...], n_missing: int) -> str:
    shown = labels[:_MAX_LABELS]
    scale = max(max(label.share_filled for label in shown), 0.01)
    body = "".join(
        _row(
            _cell(label.label),
            _cell(f"{label.n_cells:,}", "n"),
            _cell(f"{label.share_filled:.2%}", "n"),
            f'<td><div class="bar"><i style="width:{100 * label.share_filled / scale:.0f}%"></i></div></td>',
            _cell(f"{label.counted:,.0f}", "n"),
            _cell(f"{label.predicted:,.0f}", "n"),
        )
        for label in shown
    )
    use = (
        "Your data mark missing entries, so imputation leaves your zeros alone; this is what "
        "<code>missing='zeros'</code> would do."
        if n_missing
        else "The zeros were seen, and count as evidence: they get what the cell would show there on average."
    )
    more = f"<p><small>The {len(shown)} labels with the largest share, of {len(labels)}.</small></p>"
    return (
        "<section><h2>What happens to zeros?</h2><p>Most zeros are what a shallow look at a low rate gives, and true. "
        f"{use} Filled means half a count or more. The last columns compare the molecules of the hidden entries with "
        "those that the model expects there.</p>"
        '<table class="labels"><tr><th>Cells</th><th class="n">number</th><th class="n">zeros filled</th><th></th>'
        f'<th class="n">hidden molecules</th><th class="n">predicted</th></tr>{body}</table>'
        f"{more if len(labels) > len(shown) else ''}</section>"
    )


def _null(null: NullCheck) -> str:
    body = "".join(
        _row(_cell(_OUTPUTS.get(o.output, o.output)), _cell(f"{o.permuted:.3f}", "n"), _cell(f"{o.own:.3f}", "n"))
        for o in null.outputs
    )
    return (
        "<section><h2>Does it invent relations between genes?</h2>"
        f"<p>In {null.n_cells:,} of your cells the counts of every gene were shuffled over the cells, each gene on its "
        "own, so that no two genes have anything to do with each other. The trained model (not trained anew) then "
        "denoised them, told neither labels nor batches. Shown is the mean strength of correlation between the "
        f"{null.n_genes:,} strongest genes, after normalisation and log1p; by chance alone it is {null.chance:.3f}. "
        "What an output shows beyond that after shuffling is invented; compare it with the last column, the same of "
        "your cells as they are.</p>"
        '<table class="null"><tr><th>Output</th><th class="n">genes shuffled</th><th class="n">your cells</th></tr>'
        f"{body}</table></section>"
    )


def _cell(text: str, kind: str = "t") -> str:
    return f'<td class="{kind}">{escape(text)}</td>'


def _row(*cells: str, kind: str = "plain") -> str:
    return f'<tr class="{kind}">{"".join(cells)}</tr>'
