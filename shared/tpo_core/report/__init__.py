"""A trajectory or a run as one self-contained HTML page, and a run's figures as plain data."""

from __future__ import annotations

from tpo_core.report.cost import cost_lines, parameters
from tpo_core.report.entries import Entry
from tpo_core.report.figures import Chart, Figures, Series, Table
from tpo_core.report.histograms import Histogram
from tpo_core.report.moments import Mean, Share
from tpo_core.report.page import figures_page, notebook_frame, run_page, trajectory_page, write_run_page
from tpo_core.report.rounds import RoundSummary
from tpo_core.report.summary import RunSummary, summarize
from tpo_core.report.text import summary_lines, trajectory_line

__all__ = [
    "Chart",
    "Entry",
    "Figures",
    "Histogram",
    "Mean",
    "RoundSummary",
    "RunSummary",
    "Series",
    "Share",
    "Table",
    "cost_lines",
    "figures_page",
    "notebook_frame",
    "parameters",
    "run_page",
    "summarize",
    "summary_lines",
    "trajectory_line",
    "trajectory_page",
    "write_run_page",
]
