"""What is seen of a run while it goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tpo_core import Candidate, Trajectory, Usage
from tpo_core.cli.live import Live, figures
from tpo_core.runs import Counts, Price, Tally

BETTER = Trajectory(
    "q",
    (Candidate("a", reward=1.0), Candidate("b", reward=3.0, step=1, fresh=False)),
    reward_usage=Usage(prompt_tokens=500),
)
ALIKE = Trajectory("q", (Candidate("a", reward=2.0),))


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def tally(now: list[float]) -> Tally:
    before = Usage(prompt_tokens=1000, completion_tokens=1000)
    return Tally(Counts(12, 10, 2, 40), before, 40, Price(1e-3, 2e-3), clock=lambda: now[0])


def test_a_run_that_goes_on_counts_what_was_before_and_expects_the_rest_at_this_pace(tally: Tally, now: list[float]):
    tally.limit, tally.on_their_way = 32, 5
    assert figures(tally) == [
        "10 of 40 done, 2 failed, 5 on their way",
        "2 k tokens, 0/s, about 6.67 k at the end, $3.00, about $10.00 at the end",
        "0 requests in flight, at most 32",
    ]
    tally.spent += Usage(prompt_tokens=1500)
    tally.finish(BETTER)
    tally.finish(ALIKE)
    tally.fail()
    now[0] += 10
    with tally.request():
        assert figures(tally) == [
            "12 of 40 done, 3 failed, 5 on their way, 0.3 queries/s, 1:23 left",
            "4 k tokens, 200/s, about 10.7 k at the end, $5.00, about $13.33 at the end",
            "reward 1.5 of the first best, 2.5 of the best; 50% gained",
            "1 requests in flight, at most 32",
        ]


def test_of_a_stream_whose_end_is_not_known_nothing_is_foretold(now: list[float]):
    tally = Tally(Counts(0, 0, 0, None), clock=lambda: now[0])
    tally.finish(BETTER)
    now[0] += 1
    assert "left" not in (said := " ".join(figures(tally))) and "at the end" not in said and "$" not in said


def test_without_a_terminal_there_is_a_plain_line_every_ten_seconds(tally: Tally, now: list[float]):
    out = io.StringIO()
    with Live(tally, Console(file=out, width=40), clock=lambda: now[0]) as live:
        for _ in range(25):
            live.ended()
            now[0] += 1
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 and lines[0].startswith("10 of 40 done") and "\x1b" not in out.getvalue()


def test_on_a_terminal_the_lines_change_in_place_and_are_gone_at_the_end(tally: Tally):
    out = io.StringIO()
    with Live(tally, Console(file=out, force_terminal=True, width=100)) as live:
        live.ended()
    assert "10 of 40 done" in out.getvalue() and out.getvalue().rstrip().endswith("\x1b[2K")


def test_quiet_shows_nothing(tally: Tally, now: list[float]):
    out = io.StringIO()
    with Live(tally, Console(file=out, force_terminal=True), quiet=True, clock=lambda: now[0]) as live:
        now[0] += 60
        live.ended()
    assert out.getvalue() == ""
