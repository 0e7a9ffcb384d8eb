"""``tpo bench`` as a user runs it, against servers on loopback and small files with the data sets' own fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_rows import ROWS
from environment import forget_models

from loopback import LoopbackServer
from tpo_core.cli.main import main
from tpo_core.runs import RunReader
from tpo_core.studies.benchmarks import BENCHMARKS, table

Start = Callable[..., LoopbackServer]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, with a reward and a copy of each benchmark in it."""
    forget_models(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def length(prompt, response):\n    return float(sum(map(ord, response)))\n")
    for name, rows in ROWS.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def bench(server: LoopbackServer | None, *names: str, options: tuple[str, ...] = ()) -> int:
    files = [part for name in names for part in ("--file", f"{name}={name}.jsonl")]
    base = ["--api-base", server.url] if server else []
    small = ["--width", "2", "--depth", "1", "--reward", "mine.py:length", "--quiet"]
    return main(["bench", *names, "-o", "out", *files, *small, *base, *options])


def test_the_list_is_the_table(capsys: Capture) -> None:
    assert main(["bench", "--list"]) == 0
    assert capsys.readouterr().out == table()


def test_a_dry_run_counts_and_asks_nothing(loopback: Start, capsys: Capture) -> None:
    assert bench(None, *ROWS, options=("--dry-run", "--plans", "single,paper")) == 0
    out = capsys.readouterr().out
    assert "out/math-500/paper" in out and "112 requests" in out  # 8 benchmarks of 2 queries: 1 and 2 + 1 * 4 each
    assert not any(Path("out").glob("*/*/run.sqlite"))


def test_every_plan_is_a_run_of_its_own(loopback: Start) -> None:
    server = loopback()
    plans = "single,bon,paper,bon@N3"
    assert bench(server, "hh-rlhf", options=("--plans", plans)) == 0
    widths = {}
    for plan in plans.split(","):
        with RunReader(f"out/hh-rlhf/{plan}") as made:
            assert made.counts.done == made.counts.total == 2
            ended = list(made.finished())
        assert [each.item.row["row"] for each in ended] == ROWS["hh-rlhf"]
        widths[plan] = [sum(c.step == 0 for c in each.trajectory.candidates) for each in ended]
    assert widths == {"single": [1, 1], "bon": [4, 4], "paper": [2, 2], "bon@N3": [3, 3]}
    asked = len(server.requests)
    assert bench(server, "hh-rlhf", options=("--plans", plans)) == 0
    assert len(server.requests) == asked  # the same command again asks nothing


def test_revision_and_the_adaptive_plan_end_within_the_budget(loopback: Start) -> None:
    tokens = ("--max-total-tokens", "400", "--prompt-price", "0", "--plans", "revision,adaptive")
    assert bench(loopback(), "xstest", options=tokens) == 0
    for plan in ("revision", "adaptive"):
        with RunReader(f"out/xstest/{plan}") as made:
            assert made.counts.done == 2
            assert made.settings["plan"] == ("paper" if plan == "revision" else "adaptive")


def test_what_was_begun_needs_neither_the_copy_nor_the_hub(loopback: Start, capsys: Capture) -> None:
    server = loopback()
    assert bench(server, "ifeval", options=("--plans", "single")) == 0
    Path("ifeval.jsonl").unlink()
    assert bench(server, "ifeval", options=("--plans", "bon")) == 0
    assert bench(server, "ifeval", options=("--plans", "bon", "--limit", "1")) == 2
    assert "begun with the limit None, not 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name a benchmark, of alpaca-eval-2"),
        (["math-500"], "-o FOLDER"),
        (["maths-500", "-o", "out"], "did you mean math-500"),
        (["math-500", "-o", "out", "--plans", "best"], "there is no plan 'best'"),
        (["math-500", "ifeval", "-o", "out", "--file", "a.jsonl"], "say for which benchmark"),
        (["math-500", "-o", "out", "--limit", "0"], "--limit must be at least 1"),
        (["math-500", "-o", "out", "--file", "xstest.jsonl"], "has no problem: it has 'prompt'"),
        (["math-500", "-o", "out", "--width", "0"], "width must be"),
        (["math-500", "-o", "out"], "--file math-500=PATH"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_asked(
    arguments: list[Any], told: str, capsys: Capture
) -> None:
    assert main(["bench", *arguments]) == 2
    err = capsys.readouterr().err
    assert told in err.splitlines()[-1]


def test_every_benchmark_has_rows_here() -> None:
    assert set(ROWS) == {each.name for each in BENCHMARKS}
