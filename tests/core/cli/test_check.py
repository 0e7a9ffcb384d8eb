"""``tpo check``, as a user runs it, against servers on loopback."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopback import LoopbackServer
from tpo_core import Experience
from tpo_core.cli.check import PROMPTS
from tpo_core.cli.main import main

Start = Callable[..., LoopbackServer]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(folder: Path) -> None:
    """Work in a folder of one's own, with a reward in it."""
    Path("mine.py").write_text("def length(prompt, response):\n    return float(response.count('x'))\n")


def sample(number: int) -> str:
    return f"{number} " + "x" * max(1, round(random.Random(number).gauss(100, 10)))


def deaf(request: dict[str, Any], number: int) -> str:
    """Answer everything as if it were asked for the first time."""
    return sample(number)


def follows(request: dict[str, Any], number: int) -> str:
    """Answer with what is shown, made longer, where it is to be rewritten."""
    asked = request["messages"][-1]["content"]
    if "Rewrite a response" not in asked:
        return sample(number)
    shown = max(map(len, re.findall("x{20,}", asked)))
    return f"{number} " + "x" * (shown + 10 + number % 5)


def check(server: LoopbackServer | str, *args: str) -> int:
    url = server if isinstance(server, str) else server.url
    return main(["check", "--reward", "mine.py:length", "--api-base", url, "--max-concurrency", "1", *args])


def test_a_model_that_follows_is_told_from_one_that_does_not(loopback: Start, capsys: Capture) -> None:
    server = loopback(follows)
    assert check(server, "--queries", "6", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"]["plan"] in ("adaptive", "paper") and found["delta"]["low"] > 0
    assert found["queries"] == 6 and found["models"]["policy"] == "smol"
    assert Experience.from_json(json.dumps(found["experience"])).evidence.update.usable == 24
    asked = [request["messages"][-1]["content"] for request in server.requests]
    assert PROMPTS[5] in asked and PROMPTS[6] not in asked
    assert check(loopback(deaf), "--queries", "6") == 0
    out = capsys.readouterr().out
    assert "use bon: updates do not pay" in out and 'TPOConfig(mode="bon", width=' in out
    assert re.search(r"updates usable +100% \(86% to 100%\)", out)


def test_the_prompts_of_a_file_are_asked(loopback: Start, capsys: Capture) -> None:
    Path("mine.jsonl").write_text('{"prompt": "why?"}\n{"prompt": "how?"}\n')
    server = loopback(follows)
    assert check(server, "--prompts", "mine.jsonl", "--system", "Be brief.") == 0
    assert "2 queries with smol" in capsys.readouterr().out
    first = [[m["content"] for m in request["messages"]] for request in server.requests]
    assert ["Be brief.", "why?"] in first and ["Be brief.", "how?"] in first


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["--queries", "0"], "--queries must be above 0"),
        (["--seconds", "nan"], "--seconds must be above 0"),
        (["--temperature", "-1"], "temperature must be a number of at least 0"),
        (["--prompts", "none.jsonl"], "none.jsonl"),
        (["--prompts", "bad.jsonl"], "bad.jsonl, line 1: it has no field 'prompt' or 'messages'"),
        (["--model", "big"], "has no model 'big'; it has smol"),
        (["--reward", "mine.py:width"], "--reward mine.py:width cannot be imported"),
    ],
)
def test_what_is_wrong_is_one_line_before_a_model_is_called(
    loopback: Start, capsys: Capture, args: list[str], what: str
) -> None:
    Path("bad.jsonl").write_text('{"text": "why?"}\n')
    server = loopback()
    assert check(server, *args) in (1, 2)
    error = capsys.readouterr().err
    assert what in error and error.count("\n") == 1 and not server.requests


def test_a_server_that_fails_every_query_is_one_line(loopback: Start, capsys: Capture) -> None:
    assert check(loopback(lambda request, number: (404, {"error": {"message": "gone"}}))) == 1
    out, error = capsys.readouterr()
    assert not out and error.count("\n") == 1


def test_rewards_that_are_all_equal_are_said(loopback: Start, capsys: Capture) -> None:
    assert check(loopback(lambda request, number: f"answer {number}"), "--queries", "2") == 0
    out = capsys.readouterr().out
    assert "note: in 2 queries all samples got the same reward" in out and "use adaptive" in out


def test_a_query_that_was_begun_is_finished_and_counts_in_full(loopback: Start, capsys: Capture) -> None:
    assert check(loopback(follows), "--seconds", "0.001") == 0
    out = capsys.readouterr().out
    assert "note: 1 of 12 queries were answered (see --seconds)" in out
    assert "updates usable    100%" in out and "13 samples" in out


def test_a_reward_s_file_may_hold_dataclasses(loopback: Start, capsys: Capture) -> None:
    Path("graded.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Grade:\n    value: float\n\n"
        "def reward(prompt, response):\n    return Grade(float(len(response))).value\n"
    )
    assert check(loopback(follows), "--queries", "1", "--reward", "graded.py:reward") == 0
    assert "reward reward" in capsys.readouterr().out
