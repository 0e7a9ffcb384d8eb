"""The commands people type: each works, or is refused with what to do. The summary prints the table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopback import LoopbackServer
from tpo_core.cli.main import main

Start = Callable[..., LoopbackServer]
ASK = "ask why? --width 2 --depth 1 --reward mine.py:length"
RUN = "run prompts.jsonl -o out --width 2 --depth 1 --reward mine.py:length --quiet"
SERVED = "--api-base URL"

WORKS = {
    "tpo ask": f"{ASK} {SERVED}",
    "a model by name": f"{ASK} {SERVED} --model smol",
    "a critic and an editor of their own": f"{ASK} {SERVED} --critic smol --editor smol",
    "a system prompt and sampling": f"{ASK} {SERVED} --system Briefly. --temperature 0.9 --top-p 0.9 --seed 1",
    "limits": f"{ASK} {SERVED} --max-calls 4 --max-total-tokens 900 --patience 1 --stop-at 99 --deadline 60",
    "best-of-N": f"{ASK} {SERVED} --mode bon",
    "revision": f"{ASK} {SERVED} --mode revision",
    "fresh answers": f"{ASK} {SERVED} --fresh 1 --samples-at-once 1",
    "a file and JSON": f"{ASK} {SERVED} --json --save answer.json",
    "the model judges itself": f"ask why? --width 2 --depth 1 --reward judge {SERVED}",
    "a model judges": f"ask why? --width 2 --depth 1 --reward judge:smol {SERVED}",
    "checks that a file holds": f"ask why? --width 2 --depth 1 --reward mine.py:short {SERVED}",
    "tpo score": "score pairs.jsonl --reward mine.py:length",
    "tpo score with a judge": f"score pairs.jsonl -o scored.jsonl --reward judge {SERVED}",
    "tpo run": f"{RUN} {SERVED}",
    "tpo run within limits": f"{RUN} {SERVED} --total-calls 9 --max-concurrency 2 --seed 1",
    "tpo run of a CSV file": f"run prompts.csv -o out --prompt-field q --mode bon --reward mine.py:length {SERVED}",
    "tpo check": f"check --queries 2 --reward mine.py:length {SERVED}",
    "tpo check as JSON": f"check --queries 2 --json --reward mine.py:length {SERVED}",
    "tpo show": "show answer.json",
    "tpo show as a page": "show answer.json --html page.html --title Answer",
    "tpo --version": "--version",
    "tpo ask --help": "ask --help",
}

REFUSED = {
    "no server there": (f"{ASK} --api-base http://127.0.0.1:9/v1", "no server answers at http://127.0.0.1:9/v1"),
    "an address without /v1": (f"{ASK} --api-base ROOT", "usually ends in /v1; try"),
    "a reward file that is not there": (f"ask why? --reward yours.py:length {SERVED}", "yours.py"),
    "a function that is not there": (f"ask why? --reward mine.py:lenght {SERVED}", "lenght"),
    "a reward of the wrong shape": (f"ask why? --reward mine.py:backwards {SERVED}", "comes first, where the prompt"),
    "a word as reward": (f"ask why? --reward helpful {SERVED}", "neither a model name"),
    "a width of 0": (f"ask why? --width 0 {SERVED}", "width must be an integer of at least 1"),
    "an unknown mode": (f"ask why? --mode best {SERVED}", "mode"),
    "nothing asked": (f'ask "" {SERVED}', "query is empty"),
    "a folder to save in that is not there": (f"{ASK} {SERVED} --save there/answer.json", "there is no folder"),
    "prompts that are not there": ("run none.jsonl -o out --reward mine.py:length", "none.jsonl"),
    "a field that is not there": (f"run prompts.csv -o out --reward mine.py:length {SERVED}", "prompt"),
    "a file of something else": ("show mine.py", "mine.py"),
    "a misspelt option": (f"ask why? --widht 2 {SERVED}", "--widht"),
}


@pytest.fixture(autouse=True)
def here(folder: Path) -> None:
    """Work in a folder with what the commands name, and no models in the environment."""
    Path("mine.py").write_text(
        "from tpo_core.rewards import ChecksReward\nfrom tpo_core.rewards.checks import words\n"
        "def length(prompt, response):\n    return float(len(response))\n"
        "def backwards(response, prompt):\n    return 1.0\n"
        "short = ChecksReward([words(most=3)])\n"
    )
    Path("prompts.jsonl").write_text('{"prompt": "why?"}\n{"prompt": "how?"}\n')
    Path("prompts.csv").write_text("q,topic\nwhy?,1\nhow?,2\n")
    Path("pairs.jsonl").write_text('{"prompt": "why?", "response": "because"}\n')


def typed(command: str, server: LoopbackServer) -> int:
    """Run what was typed after ``tpo``, and return its exit code."""
    words = [{"URL": server.url, "ROOT": server.url.removesuffix("/v1")}.get(w, w) for w in shlex.split(command)]
    try:
        return main(words)
    except SystemExit as ended:  # argparse's own way out
        return int(ended.code or 0)


@pytest.mark.parametrize("shape", WORKS)
def test_a_command_works(loopback: Start, shape: str, record_property: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = loopback()
    if WORKS[shape].startswith("show"):
        typed(f"{ASK} {SERVED} --json --save answer.json", server)
        capsys.readouterr()
    assert typed(WORKS[shape], server) == 0
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err and (shown.out or Path("out").exists() or Path("scored.jsonl").exists())
    if "--json" in WORKS[shape]:
        json.loads(shown.out)
    record_property("shape", (shape, "works"))


@pytest.mark.parametrize("shape", REFUSED)
def test_a_command_is_refused_with_what_to_do(
    loopback: Start, shape: str, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command, word = REFUSED[shape]
    server = loopback()
    assert typed(command, server) in (1, 2)
    said = capsys.readouterr().err.strip()
    assert word in said and "Traceback" not in said and not server.requests
    record_property("shape", (shape, f"refused: {said.splitlines()[-1]}"))
