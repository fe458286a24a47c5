"""Findings as one page."""

from html import escape
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
_STYLE = """
:root { --ink: #1f2933; --soft: #5f6c7b; --line: #e3e8ee; --blue: #2a6ebb; --orange: #c2571a; --green: #2f7d4f; }
* { box-sizing: border-box; }
body { background: #f5f7f9; color: var(--ink); font: 15px/1.55 system-ui, "Helvetica Neue", Arial, sans-serif; margin: 0; }
main { margin: 0 auto; max-width: 1020px; padding: 28px 20px 60px; }
h1 { font-size: 27px; letter-spacing: -.01em; margin: 0 0 2px; }
h2 { font-size: 18px; margin: 0 0 6px; }
p { margin: 6px 0 10px; max-width: 80ch; }
.soft, figcaption, small { color: var(--soft); }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; margin-top: 18px; padding: 20px 24px; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); margin-top: 18px; }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }
.tile b { display: block; font-size: 26px; line-height: 1.25; }
.tile span { color: var(--soft); font-size: 13px; }
.caution { border-left: 4px solid var(--orange); margin: 12px 0; padding: 2px 0 2px 14px; }
.caution b { color: var(--orange); }
.fine { border-left: 4px solid var(--green); padding: 2px 0 2px 14px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; margin: 8px 0; }
th { color: var(--soft); font-weight: 600; text-align: left; vertical-align: bottom; }
th small { display: block; font-weight: 400; max-width: 17ch; line-height: 1.3; }
td, th { border-bottom: 1px solid var(--line); padding: 6px 18px 6px 0; }
td.n, th.n { text-align: right; }
tr.ours td { background: #f1f6fc; }
td.best { font-weight: 700; }
.bar { background: var(--line); border-radius: 3px; height: 9px; width: 180px; }
.bar i { background: var(--blue); border-radius: 3px; display: block; height: 9px; }
.pair { display: grid; gap: 18px; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); margin-top: 8px; }
figure { margin: 0; } img { height: auto; width: 100%; } figcaption { font-size: 13px; }
.settings td { overflow-wrap: anywhere; vertical-align: top; } .settings td:first-child { color: var(--soft); }
"""
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Imputation report</title>
<style>$style</style>
</head>
<body><main>
<h1>Imputation report</h1>
<p class="soft">$data</p>
<div class="tiles">$tiles</div>
<section><h2>What to watch out for</h2>$cautions</section>
<section><h2>How close are imputed counts?</h2>
<p>Before training, $n_entries observed entries in $n_cells cells were hidden, zeros included. The model never saw them; below, what it
predicts there is compared with what had been counted. Two simple methods answered for the same entries: the mean of each gene scaled to
the depth of the cell, and the average of the 30 most similar cells. The best value of a column is bold.</p>
$scores
<div class="pair">
<figure><img alt="Imputed against held-out counts" src="$recovery"><figcaption>Every held-out entry; on the dashed line it would be
exact. Single molecules are chance, so no method gets a cloud of small counts onto the line.</figcaption></figure>
<figure><img alt="Mean held-out counts by predicted mean" src="$calibration"><figcaption>Where the model says 0.1, there should be one
molecule in ten such entries: dots belong on the line.</figcaption></figure>
</div></section>
<section><h2>Does it know how sure it is?</h2>
<p>For every entry the model also gives an interval that should hold the count $interval of the time. Counts are whole, so sound intervals
hold a little more: of these $promised. <b>They held $coverage.</b> The model expected $zeros_predicted of the hidden entries
to be zero; $zeros_counted were.</p>
<div class="pair">
<figure><img alt="Share of counts within their intervals" src="$coverage_plot"><figcaption>Counts within their intervals, by predicted
mean. Dots at the bottom edge of the grey band or above it are fine; below it the model is too sure.</figcaption></figure>
<figure><img alt="Histogram of the randomised PIT" src="$pit"><figcaption>Where counts fall in their predicted distributions. Flat is
right; high at both ends: too sure; high in the middle: too unsure; high on the right: predictions too low.</figcaption></figure>
</div></section>
$labels
$null
<section><h2>How this was made</h2><table class="settings">$settings</table></section>
</main></body>
</html>
""")


def render(findings: Findings) -> str:
    """Write findings as one HTML page that needs nothing from anywhere else."""
    data, held_out, calibration = findings.data, findings.held_out, findings.calibration
    drawn = pictures(held_out, calibration)
    missing = f"{data.n_missing:,} entries are missing." if data.n_missing else "No entry is marked as missing."
    return _PAGE.substitute(
        style=_STYLE,
        data=f"{data.n_cells:,} cells × {data.n_genes:,} genes, {data.median_depth:,.0f} molecules in the median cell, "
        f"{data.share_zeros:.1%} zeros. {missing}",
        tiles=_tiles(findings),
        cautions=_cautions(cautions(findings)),
        n_entries=f"{len(held_out.truth):,}",
        n_cells=f"{findings.n_scored_cells:,}",
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
        labels=_labels(findings.labels, data.n_missing) if findings.labels else "",
        null=_null(findings.null) if findings.null else "",
        settings="".join(_row(("", name), ("", value)) for name, value in findings.settings.items()),
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
    if findings.labels:
        filled = sum(label.n_filled for label in findings.labels) / max(
            sum(label.n_zeros for label in findings.labels), 1
        )
        tiles.append((f"{filled:.1%}", "of the zeros are filled when zeros are imputed"))
    return "".join(f'<div class="tile"><b>{escape(n)}</b><span>{escape(text)}</span></div>' for n, text in tiles)


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
        values = [("n best" if getattr(score, n) == best[n] else "n", f"{getattr(score, n):.4f}") for n in best]
        body += _row(("", score.method), *values, of="ours" if i == 0 else "")
    return f'<table class="scores"><tr><th>Method</th>{head}</tr>{body}</table><p><small>↑ higher is better, ↓ lower is better.</small></p>'


def _labels(labels: tuple[LabelFinding, ...], n_missing: int) -> str:
    shown = labels[:_MAX_LABELS]
    body = ""
    for label in shown:
        bar = f'<td><div class="bar"><i style="width:{100 * label.share_filled:.1f}%"></i></div></td>'
        cells = [("", label.label), ("n", f"{label.n_cells:,}"), ("n", f"{label.share_filled:.2%}")]
        amount = [("n", f"{label.counted:,.0f}"), ("n", f"{label.predicted:,.0f}")]
        body += _row(*cells).replace("</tr>", bar + _row(*amount).removeprefix("<tr>"))
    use = (
        "Your data mark missing entries, so imputation leaves your zeros alone; this is what <code>missing='zeros'</code> would do."
        if n_missing
        else "The zeros were seen, and count as evidence: they get what the cell would show there on average."
    )
    more = f"<p><small>The {len(shown)} labels with the largest share, of {len(labels)}.</small></p>"
    return (
        f"<section><h2>What happens to zeros?</h2><p>Most zeros are what a shallow look at a low rate gives, and true. {use} "
        "Filled means half a count or more. The last columns compare the molecules of the hidden entries with the model's.</p>"
        '<table class="labels"><tr><th>Cells</th><th class="n">number</th><th class="n">zeros filled</th><th></th>'
        f'<th class="n">hidden molecules</th><th class="n">predicted</th></tr>{body}</table>'
        f"{more if len(labels) > len(shown) else ''}</section>"
    )


def _null(null: NullCheck) -> str:
    body = "".join(
        _row(("", _OUTPUTS.get(o.output, o.output)), ("n", f"{o.permuted:.3f}"), ("n", f"{o.own:.3f}"))
        for o in null.outputs
    )
    return (
        "<section><h2>Does it invent relations between genes?</h2>"
        f"<p>In {null.n_cells:,} of your cells the counts of every gene were shuffled over the cells, each gene on its own, so that no "
        "two genes have anything to do with each other. The trained model (not trained anew) then denoised them, told neither "
        f"labels nor batches. Shown is the mean strength of correlation between the {null.n_genes:,} strongest genes, after "
        f"normalisation and log1p; by chance alone it is {null.chance:.3f}. What an output shows beyond that after shuffling is "
        "invented; compare it with the last column, the same of your cells as they are.</p>"
        '<table class="null"><tr><th>Output</th><th class="n">genes shuffled</th><th class="n">your cells</th></tr>'
        f"{body}</table></section>"
    )


def _row(*cells: tuple[str, str], of: str = "") -> str:
    """One row of a table, of (class, text)."""
    inner = "".join(
        f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>" for kind, text in cells
    )
    return f'<tr class="{of}">{inner}</tr>' if of else f"<tr>{inner}</tr>"
