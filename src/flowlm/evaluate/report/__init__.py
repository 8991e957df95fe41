"""The report of a run: plain values in, one self-contained HTML page out. Standard library only."""

from flowlm.evaluate.report.page import render, write_report
from flowlm.evaluate.report.schema import Film, Frame, Reference, Report, Row, Sample, checked

__all__ = [
    "Film",
    "Frame",
    "Reference",
    "Report",
    "Row",
    "Sample",
    "checked",
    "render",
    "write_report",
]
