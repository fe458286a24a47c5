"""The self-checking report: findings from arrays, what to make of them, and one page that shows both."""

from ._cautions import Caution, cautions
from ._findings import (
    Calibration,
    DataSummary,
    Findings,
    HeldOut,
    Invented,
    LabelFinding,
    NullCheck,
    Score,
)
from ._page import render
from ._score import FILLED, by_label, calibrate, cdf, compare, null_check, summarise

__all__ = [
    "FILLED",
    "Calibration",
    "DataSummary",
    "Findings",
    "HeldOut",
    "Invented",
    "LabelFinding",
    "NullCheck",
    "Score",
    "Caution",
    "by_label",
    "calibrate",
    "cdf",
    "compare",
    "null_check",
    "render",
    "summarise",
    "cautions",
]
