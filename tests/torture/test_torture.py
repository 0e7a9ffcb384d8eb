"""Each scenario in short; ``make torture`` runs them in full, and prints what was tried."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from all_scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_breaks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    report = SCENARIOS[name].run(SCENARIOS[name].short)
    assert not report.failures, report
