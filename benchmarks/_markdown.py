"""Tables and pages for people."""

import math
from pathlib import Path

import pandas as pd

_NOTES = "## Notes"  # by hand, at the end of a page


def markdown(table: pd.DataFrame) -> str:
    """Table without its index, numbers to four digits, and nothing where there is none."""
    lines = [" | ".join(table.columns), "|".join(["---"] * len(table.columns))]
    for row in table.itertuples(index=False):
        lines.append(" | ".join(_cell(value) for value in row))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.4g}"


def write_page(path: Path, *parts: str) -> None:
    """Write a page of results; notes that somebody added to it by hand, below "## Notes", stay."""
    before = path.read_text() if path.is_file() else ""
    _, heading, notes = before.partition(f"\n{_NOTES}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join([*parts, *([f"{_NOTES}\n\n{notes.strip()}"] if heading else [])]) + "\n")
