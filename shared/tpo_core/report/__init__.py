"""A trajectory or a run as one self-contained HTML page, and a run's figures as plain data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {  # loaded when first used: a query needs none of the pages and figures
    "Chart": "figures",
    "Entry": "entries",
    "Figures": "figures",
    "Histogram": "histograms",
    "Mean": "moments",
    "RoundSummary": "rounds",
    "RunSummary": "summary",
    "Series": "figures",
    "Share": "moments",
    "Table": "figures",
    "cost_lines": "cost",
    "figures_page": "page",
    "notebook_frame": "page",
    "parameters": "cost",
    "run_page": "page",
    "summarize": "summary",
    "summary_lines": "text",
    "trajectory_line": "text",
    "trajectory_page": "page",
    "write_run_page": "page",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"tpo_core.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
