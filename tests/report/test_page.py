import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from matplotlib import image

from countsdiff import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def page(findings):
    return report.render(findings)


def text_of(page):
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("</head>")[1])))


def test_needs_nothing_from_anywhere(page):
    sources = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,iVBORw0KGgo") for source in sources)
    for outside in ("http:", "https:", "//", "@import", "url(", "<link", "<script", "<iframe"):
        assert outside not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page), outside


def test_shows_the_numbers(page, findings):
    text = text_of(page)
    for score in findings.scores:
        assert f"{score.method} {score.r2:.4f} {score.rmse:.4f} {score.poisson_loss:.4f}" in text
    assert "2,000 cells × 60 genes, 2,345 molecules in the median cell, 40.0% zeros" in text
    assert f"They held {findings.calibration.coverage:.1%}" in text
    assert f"of these {findings.calibration.promised:.1%}" in text
    assert "NK 50 1.50% 900 910" in text
    assert "mean (the default) 0.050 0.300" in text


def test_the_best_of_a_column_is_bold(page):
    assert re.findall(r'<td class="n best">([\d.]+)</td>', page) == ["0.8123", "1.5000", "0.1000", "0.7000"]


def test_names_are_text_and_not_markup(page):
    assert "<cells>" not in page
    assert "T &amp; B &lt;cells&gt;" in page
    assert "in &lt;file&gt;.h5ad" in page


def test_cautions_are_shown_or_that_there_are_none(page, findings):
    assert "None of the checks below failed" in page
    warned = report.render(replace(findings, checked=False))
    assert re.findall(r'data-name="(.*?)"', warned) == ["unchecked"]
    assert "None of the checks below failed" not in warned


def test_same_findings_same_page(page, findings):
    assert report.render(findings) == page


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path (Debian and Ubuntu: package chromium)")
def test_renders_in_a_browser(page, tmp_path):
    source, shot = tmp_path / "report.html", tmp_path / "report.png"
    source.write_text(page, encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,2400"]
    subprocess.run(
        [BROWSER, *options, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", source.as_uri()],
        check=True,
        capture_output=True,
        timeout=60,
    )
    pixels = (image.imread(shot)[..., :3] * 255).round().astype(int)
    assert pixels.shape == (2400, 1100, 3)

    def share(colour, part=pixels):
        return np.mean(np.abs(part - np.array(colour)).max(axis=2) <= 6)

    assert share((255, 255, 255)) > 0.4  # sections
    assert share((245, 247, 249)) > 0.05  # the ground they stand on
    # the four pictures are drawn: bars of the histogram, and the density from its emptiest to its fullest cells
    assert share((42, 110, 187)) > 0.01
    assert share((68, 1, 84)) > 0.0005
    # text from top to bottom, and none cut off at the right
    dark = pixels.max(axis=2) < 90
    assert all(band.any() for band in np.array_split(dark[:1800], 12))
    assert not dark[:, -30:].any()
