"""``tpo study`` on a model behind a server on loopback."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopback import LoopbackServer
from tpo_core.cli.main import main

Start = Callable[..., LoopbackServer]


@pytest.fixture(autouse=True)
def here(folder: Path) -> None:
    """Work in a folder of one's own, with a reward and two prompts in it."""
    Path("mine.py").write_text("def length(prompt, response):\n    return float(response.count('x'))\n")
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"query {n}"}) + "\n" for n in range(3)))


def follows(request: dict[str, Any], number: int) -> str:
    """Answer with what is shown, made longer, where it is to be rewritten."""
    if "Rewrite a response" not in request["messages"][0]["content"]:
        return f"{number} " + "x" * max(20, round(random.Random(number).gauss(100, 10)))
    shown = max(map(len, re.findall("x{20,}", request["messages"][-1]["content"])))
    return f"{number} " + "x" * (shown + 10 + number % 5)


def study(server: LoopbackServer, *args: str) -> int:
    common = ["--reward", "mine.py:length", "--api-base", server.url, "--prompts", "prompts.jsonl", "--queries", "2"]
    return main(["study", "width", *common, "--quiet", "-o", "kept", "--csv", "width.csv", *args])


def test_a_model_s_study_is_kept_and_its_command_again_asks_the_server_nothing(
    loopback: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = loopback(follows)
    assert study(server) == 0
    said, asked = capsys.readouterr().out, len(server.requests)
    rows = list(csv.DictReader(Path("width.csv").read_text().splitlines()))
    assert [row["arm"] for row in rows] == ["width 2", "width 3", "width 5", "width 8"]
    assert all(row["queries"] == "2" and float(row["tokens"]) > 0 for row in rows)
    assert "2 queries, 1 seed each, policy smol, reward mine.py:length" in said
    assert study(server) == 0
    posted = [request for request in server.requests[asked:] if "messages" in request]
    assert not posted and capsys.readouterr().out == said


def test_a_folder_of_another_model_s_study_is_refused(loopback: Start, capsys: pytest.CaptureFixture[str]) -> None:
    server = loopback(follows)
    assert study(server) == 0
    assert study(server, "--temperature", "0.1") == 1
    assert "temperature" in capsys.readouterr().err


def test_a_server_that_is_gone_and_prompts_that_are_none_are_told_before_anything_is_asked(
    loopback: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompts.jsonl").write_text('{"text": "no prompt"}\n')
    assert study(loopback(follows)) == 2
    assert "prompt" in capsys.readouterr().err
    assert main(["study", "modes", "--policy", "embedded", "--model", "x"]) == 2
