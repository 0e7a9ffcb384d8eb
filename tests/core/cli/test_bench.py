"""``tpo bench`` as a user runs it, against servers on loopback and small files with the data sets' own fields."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_rows import ROWS

from loopback import LoopbackServer
from tpo_core.cli.main import main
from tpo_core.runs import RunReader
from tpo_core.studies.benchmarks import BENCHMARKS, table

Start = Callable[..., LoopbackServer]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(folder: Path) -> Path:
    """Work in a folder of one's own, with a reward and a copy of each benchmark in it."""
    Path("mine.py").write_text("def length(prompt, response):\n    return float(sum(map(ord, response)))\n")
    for name, rows in ROWS.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


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
    assert bench(server, "math-500", options=("--plans", "single")) == 0
    Path("math-500.jsonl").unlink()
    assert bench(server, "math-500", options=("--plans", "bon")) == 0
    assert bench(server, "math-500", options=("--plans", "bon", "--limit", "1")) == 2
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


def solver(request: dict[str, Any], number: int) -> str:
    """Solve the first problem, keep to IFEval's instructions, and say more in an update."""
    text = str(request["messages"])
    answer = "$\\boxed{5/6}$" if "frac{1}{3}" in text or "x^2" in text else "this is an oak beside an oak in english"
    more = " and more" * (number % 4)
    return f"<IMPROVED_VARIABLE>{answer}{more}</IMPROVED_VARIABLE>" if "IMPROVED_VARIABLE" in text else answer + more


def test_math_and_ifeval_are_answered_scored_and_put_on_a_page(loopback: Start, capsys: Capture) -> None:
    pytest.importorskip("if_verifiable", reason="if-verifiable needs Python 3.11")
    Path("gold.py").write_text("def gold(prompt, response):\n    return -float(len(response))\n")
    server = loopback(solver)
    options = ("--plans", "bon@N3,paper", "--report", "page.html", "--gold", "gold.py:gold", "--policy-params", "8B")
    assert bench(server, "math-500", "ifeval", options=options) == 0
    page = Path("page.html").read_text()
    [found] = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    data = json.loads(found)
    tables = {table["title"]: table for table in data["tables"]}
    results = [dict(zip(tables["Results"]["head"], row, strict=True)) for row in tables["Results"]["rows"]]
    assert [row["plan"] for row in results] == ["bon@N3", "paper"]
    for row in results:
        assert row["MATH-500: pass@1"].startswith("50.0 (") and row["IFEval: prompts, strict"].startswith("100.0 (")
    assert (results[1]["D"], results[1]["N"], results[0]["D"], results[0]["N"]) == ("1", "2", "0", "3")
    assert "IFEval: instructions, strict" in tables["Further figures"]["head"]
    assert all(row[5] for row in tables["Rewards"]["rows"])  # a held-out reward everywhere
    assert "PFLOP" in tables["Cost"]["head"]
    titles = [chart["title"] for chart in data["charts"]]
    assert "MATH-500: reward over test-time steps" in titles and "IFEval: win rate against best-of-N" in titles
    against = next(chart for chart in data["charts"] if chart["title"] == "MATH-500: win rate against best-of-N")
    assert against["x"] == [1, 2, 3] and [s["name"] for s in against["series"]] == ["paper", "paper, held-out"]
    assert "no held-out reward" not in " ".join(data["warnings"])
    asked = len(server.requests)
    assert main(["bench", "-o", "out", "--report", "again.html"]) == 0  # all of it is kept
    assert Path("again.html").read_text().count("pass@1") and len(server.requests) == asked
    assert "MATH-500: pass@1" in capsys.readouterr().out
    shutil.copytree("out", "other")
    assert main(["bench", "-o", "out", "--beside", "other"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith(("out ", "other "))]
    assert ["other", "paper"] in rows and ["out", "paper"] in rows


def test_a_half_finished_run_is_reported_with_what_it_has(loopback: Start) -> None:
    def answer(request: dict[str, Any], number: int) -> Any:
        bad = "locks" in str(request["messages"])
        return (400, {"error": {"message": "too long"}}) if bad else f"answer {number}"

    assert bench(loopback(answer), "beavertails", options=("--plans", "single", "--report", "page.html")) == 1
    page = Path("page.html").read_text()
    assert "beavertails single is not complete: 1 of 2 queries answered, 1 failed" in page
    assert "is the reward that was optimised" in page and "There is no held-out reward" in page


def test_a_problem_without_an_answer_counts_as_wrong(loopback: Start) -> None:
    def answer(request: dict[str, Any], number: int) -> Any:
        bad = "x^2" in str(request["messages"])
        return {"content": "Let me", "finish_reason": "length"} if bad else "It is $\\boxed{5/6}$."

    assert bench(loopback(answer), "math-500", options=("--plans", "single", "--report", "page.html")) == 1
    page = Path("page.html").read_text()
    assert (
        "50.0 (" in page and "math-500 single: 1 query without an answer, failed or cut off: counted as wrong" in page
    )


def test_refusals_are_scored_by_the_judge_that_is_named_safe_and_unsafe_apart(loopback: Start, capsys: Capture) -> None:
    policy = loopback()
    assert bench(policy, "xstest", options=("--plans", "single")) == 0
    assert main(["bench", "-o", "out", "--report", "page.html"]) == 0
    assert "2 answers have no score: no judge has scored them (--judge)" in capsys.readouterr().out

    def guard(request: dict[str, Any], number: int) -> str:
        return f"Response refusal: {'yes' if 'harm a dog' in str(request['messages']) else 'no'}"

    judge = loopback(guard, model="wildguard")
    named = ["--judge", "wildguard", "--judge-base", judge.url]
    assert main(["bench", "-o", "out", *named]) == 0
    out = capsys.readouterr().out
    assert "XSTest: accuracy" in out and "100.0 (" in out and "XSTest: refusal, unsafe" in out
    assert len(judge.requests) == 2
    assert main(["bench", "-o", "out", *named]) == 0 and len(judge.requests) == 2  # no verdict is asked for twice
    odd = loopback(lambda request, number: "hm", model="odd")
    assert main(["bench", "-o", "out", "--judge", "odd", "--judge-base", odd.url]) == 0
    assert "2 answers are left out of the score: the judge answered 'hm', not COMPLIANCE" in capsys.readouterr().out


LEADERBOARD = """\
,win_rate,standard_error,n_wins,n_wins_base,n_draws,n_total,discrete_win_rate,mode,avg_length,length_controlled_winrate,lc_standard_error
smol--paper,39.5,1.7,318,487,0,805,39.5,community,1800,33.2,0.9
other,10.0,1.0,1,9,0,10,10.0,community,5,11.0,1.0
"""
PRINTED = """\
INFO: Control features: ['markdown', 'length']
##### Category: hard_prompt #####
                Model  Scores (%)         CI (%)
0  o3-mini-2025-01-31        50.0  (-0.0 / +0.0)
1         smol--paper        41.5  (-2.0 / +1.8)
"""


def test_official_files_have_the_official_fields_and_win_rates_come_back(loopback: Start, capsys: Capture) -> None:
    assert bench(loopback(), "alpaca-eval-2", "arena-hard-v2.0", options=("--plans", "paper")) == 0
    outputs = json.loads(Path("out/official/alpaca_eval/smol--paper.json").read_text())
    assert [each["instruction"] for each in outputs] == [row["instruction"] for row in ROWS["alpaca-eval-2"]]
    assert {each["generator"] for each in outputs} == {"smol--paper"} and all(each["output"] for each in outputs)
    lines = Path("out/official/data/arena-hard-v2.0/model_answer/smol--paper.jsonl").read_text().splitlines()
    for line, row in zip(map(json.loads, lines), ROWS["arena-hard-v2.0"], strict=True):
        assert (line["uid"], line["model"]) == (row["uid"], "smol--paper") and line["ans_id"] and line["tstamp"]
        assert line["messages"][0] == {"role": "user", "content": row["prompt"]}
        assert isinstance(line["messages"][1]["content"]["answer"], str)
    Path("leaderboard.csv").write_text(LEADERBOARD)
    Path("printed.txt").write_text(PRINTED)
    assert main(["bench", "-o", "out", "--import", "leaderboard.csv", "--import", "printed.txt"]) == 0
    out = capsys.readouterr().out
    assert "alpaca-eval-2 paper: win rate, length-controlled 33.2 %" in out
    head = next(line for line in out.splitlines() if line.startswith("plan"))
    assert head.index("length-controlled") < head.index("AlpacaEval 2: win rate  ")  # beside each other
    assert "39.5 (36.2 to 42.8)" in out and "41.5 (39.5 to 43.3)" in out
    Path("leaderboard.csv").write_text(LEADERBOARD.replace("smol--paper", "smol--other"))
    assert main(["bench", "-o", "out", "--import", "leaderboard.csv"]) == 2
    assert "has results of other, smol--other, and the runs here are smol--paper" in capsys.readouterr().err
    Path("leaderboard.csv").write_text("hello")
    assert main(["bench", "-o", "out", "--import", "leaderboard.csv"]) == 2
    assert "neither alpaca_eval's leaderboard.csv nor" in capsys.readouterr().err
