"""Each scenario in short; ``make torture`` runs them in full, and prints what was tried."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))

from all_scenarios import SCENARIOS
from flatness import trend
from soak import soak


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_breaks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    report = SCENARIOS[name].run(SCENARIOS[name].short)
    assert not report.failures, report


def test_a_short_soak_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    trends = soak(lambda so_far: len(so_far.at) < 6).trends()
    del trends["memory"]  # an allocator needs longer to settle
    assert all(found.flat for found in trends.values()), {name: str(found) for name, found in trends.items()}


@settings(max_examples=20)
@given(
    st.lists(st.floats(-1, 1), min_size=40, max_size=120),
    st.floats(0, 3) | st.floats(0, 0.2),
    st.floats(0.1, 100),
)
def test_what_grows_by_much_more_than_its_noise_is_said_to_grow(noise: list[float], low: float, unit: float) -> None:
    growing = [(n + 10 * place / len(noise)) * unit for place, n in enumerate(noise)]
    assert not trend(range(len(noise)), growing).flat
    assert trend(range(len(noise)), growing, grain=14 * unit).flat
    falling = [-value for value in growing]
    assert trend(range(len(noise)), falling).flat and trend(range(len(noise)), [low] * len(noise)).flat


@settings(max_examples=20)
@given(st.integers(), st.integers(0, 20))
def test_spikes_and_noise_are_no_growth(seed: int, spikes: int) -> None:
    draw = random.Random(seed)
    level = [draw.gauss(100, 1) for _ in range(200)]
    for _ in range(spikes):
        level[draw.randrange(200)] += 500
    assert trend(range(200), level).flat
