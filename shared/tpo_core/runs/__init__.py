"""Runs of many queries that may be killed at any moment: where prompts come from, what is kept, what is made of it."""

from __future__ import annotations

from tpo_core.runs.admission import to_do
from tpo_core.runs.answers import Answers, UnderWay
from tpo_core.runs.export import export
from tpo_core.runs.items import Item
from tpo_core.runs.metering import Budget, Price, Tally
from tpo_core.runs.reader import Counts, Failed, Finished, RunReader
from tpo_core.runs.replay import ReplayPolicy, ReplayReward
from tpo_core.runs.sources import Source
from tpo_core.runs.store import Admitted, RunStore
from tpo_core.runs.writer import Receipt

__all__ = [
    "Admitted",
    "Answers",
    "Budget",
    "Counts",
    "Failed",
    "Finished",
    "Item",
    "Price",
    "Receipt",
    "ReplayPolicy",
    "ReplayReward",
    "RunReader",
    "RunStore",
    "Source",
    "Tally",
    "UnderWay",
    "export",
    "to_do",
]
