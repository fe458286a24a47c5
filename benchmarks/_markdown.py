"""Tables for people."""

import pandas as pd


def markdown(table: pd.DataFrame) -> str:
    """Table without its index, numbers to four digits."""
    lines = [" | ".join(table.columns), "|".join(["---"] * len(table.columns))]
    for row in table.itertuples(index=False):
        lines.append(" | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    return "\n".join(f"| {line} |" for line in lines)
