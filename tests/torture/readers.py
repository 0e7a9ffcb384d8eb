"""Hostile texts and bytes into whatever reads them: completions, trajectories, a run's file, the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import tempfile
from collections import Counter
from copy import deepcopy
from functools import cache
from pathlib import Path

from faults import HOSTILE

from tpo_core import TPOConfig, Trajectory, run
from tpo_core.cli.main import main
from tpo_core.errors import InvalidInputError, StoreError, TPOError
from tpo_core.prompts.reading import read
from tpo_core.prompts.rendering import fence
from tpo_core.prompts.signatures import Signature, TextualGradient, TextualLoss, Update
from tpo_core.rewards.judge.verdicts import read_choice, read_grade
from tpo_core.runs import Item, RunReader, RunStore, export
from tpo_core.testing import RubricReward, SimulatedPolicy

__all__ = ["SHOWN", "check_fence", "check_read", "command_line", "completions", "run_file", "trajectory", "written"]

AT_ONCE = 100
"""Completions of one seed."""

HUGE = 500
"""Of so many seeds, one has a completion of 10 MB."""

PARTS = (
    *HOSTILE, "word ", "Ünïcode ", "\n", "\n\n", "#", "# Rewrite\n", "`", "```", "<", ">", "&lt;", "\r\n", "\t", "\\",
    '"', '{"improved_response": "', '"}', "[[ ## textual_loss ## ]]\n", "<response-1>", "</response-1>", "Grade: ",
    "7", "/10", "A is better", "tie", "<|endoftext|>", "\u2028", "\x00", "\x9b31m", "🙂", "\ud83d", "\ude42", "ﷺ",
)  # fmt: skip

SHOWN = {
    "query": fence("How do bees sleep?", "query"),
    "current_response": fence("They fold their legs."),
    "editing_instructions": fence("be brief", "instructions"),
}


def completions(seed: int, seen: Counter[str]) -> None:
    """Read completions made of what has broken readers; nothing may come of one that was not in it."""
    draw = random.Random(seed)
    for place in range(AT_ONCE):
        text = "".join(draw.choice(PARTS) for _ in range(draw.randrange(12)))
        if seed % HUGE == HUGE - 1 and place == 0:
            text = (text or draw.choice(PARTS[1:])) * (10_000_000 // len(text or "x" * 10) + 1)
            seen["of 10 MB"] += 1
        signature = draw.choice([Update, TextualLoss, TextualGradient])
        seen[check_read(signature, text, SHOWN if draw.random() < 0.5 else None)] += 1
        for grade in (read_grade(text, 1, 10), read_choice(text, ("A", "B"))):
            seen["verdict" if grade is not None else "no verdict"] += 1
        check_fence(text)


def check_read(signature: Signature, text: str, shown: dict[str, str] | None) -> str:
    """Read a completion; returns how it ended. Each line of what is read was in it."""
    try:
        found = read(signature, text, shown)
    except TPOError:
        return "refused"
    written = _without_blanks(text) + _without_blanks(_without_escapes(text))
    lines = map(_without_blanks, found.splitlines())
    assert all(line in written for line in lines), f"{text!r} was read as {found!r}"
    return "read"


def check_fence(text: str) -> None:
    """Fence a text, which does not close the fence."""
    fenced = fence(text)
    close = fenced.rstrip().rpartition("\n")[2]
    assert fenced.count(close) == 1, f"a fence was closed from inside: {text!r}"


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _without_escapes(text: str) -> str:
    """Read the escapes of JSON, as a reader does where a completion is JSON."""
    return text.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")


@cache
def written() -> str:
    """Return a trajectory's JSON."""
    return run("How?", SimulatedPolicy(), RubricReward(), TPOConfig(width=3, depth=1)).to_json()


def trajectory(seed: int, seen: Counter[str]) -> None:
    """Read a trajectory's JSON in which something was changed: it is read, or refused in one line."""
    draw = random.Random(seed)
    data = json.loads(written())
    for _ in range(draw.randrange(1, 4)):
        _change(draw, data)
    text = json.dumps(data)
    if draw.random() < 0.2:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(PARTS) + text[place + draw.randrange(3) :]
    try:
        again = Trajectory.from_json(text)
    except InvalidInputError as error:
        assert "\n" not in str(error), f"not one line: {error}"  # noqa: PT017
        seen["refused"] += 1
    else:
        assert Trajectory.from_json(again.to_json()).to_json() == again.to_json()
        again.to_html()
        seen["read"] += 1


VALUES = (None, True, -1, 2**70, 0.5, 1e308, float("nan"), "", "text", "\ud800", [], {}, [[]], {"a": 1}, [None])


def _change(draw: random.Random, data: object) -> None:
    """Put something else in some place."""
    while True:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))  # type: ignore[arg-type, call-overload]
        if not keys:
            return
        key = draw.choice(keys)
        inner = data[key]  # type: ignore[index]
        if not isinstance(inner, (dict, list)) or not inner or draw.random() < 0.3:
            break
        data = inner
    if draw.random() < 0.3:
        del data[key]  # type: ignore[attr-defined]
    else:
        data[key] = deepcopy(draw.choice(VALUES))  # type: ignore[index]


@cache
def _run_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with RunStore.open(folder, settings={"width": 3}) as store:
            for n in range(20):
                query = store.admit(Item(f"q{n}", f"ask {n}"))
                store.finish(query.position, Trajectory.from_json(written())).wait()
            store.end_of_source()
        return Path(folder, "run.sqlite").read_bytes()


def run_file(seed: int, seen: Counter[str]) -> None:
    """Read and go on with a run whose file is damaged: what can be read is read, or it is said in one line."""
    draw = random.Random(seed)
    data = bytearray(_run_bytes())
    for _ in range(draw.choice([1, 3, 30])):
        start = draw.randrange(len(data))
        data[start : start + draw.choice([1, 8, 600])] = draw.randbytes(draw.choice([1, 8, 600]))
    if draw.random() < 0.2:
        del data[draw.randrange(len(data)) :]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "run.sqlite").write_bytes(data)
        for use in (_shown, _gone_on_with):
            try:
                use(folder)
                seen["read"] += 1
            except (StoreError, InvalidInputError) as error:
                assert "\n" not in str(error) and folder in str(error), f"it names no file: {error}"  # noqa: PT017
                seen["refused"] += 1


def _shown(folder: str) -> None:
    with RunReader(folder) as reader:
        _ = reader.counts, reader.settings
        export(reader, Path(folder, "out.jsonl"))


def _gone_on_with(folder: str) -> None:
    with RunStore.open(folder) as store:
        for n in range(21):
            store.answers(store.admit(Item(f"q{n}", f"ask {n}")))


WORDS = (
    "run", "show", "export", "score", "ask", "check", "--width", "--depth", "-o", "out", "prompts.jsonl", "bad.jsonl",
    "--to", "a.jsonl", "a.txt", "--kind", "preferences", "--reward", "r.py:score", "r.py:none", "no.py:x", "0", "-1",
    "1e99", "nan", "\udcff", "", "--html", "p.html", "--engine", "ray2", "--price", "1", "--max-calls", "--deadline",
    "--format", "csv", "--prompt-field", "--id-field", "/", ".", "--", "-", "--total-dollars", "--ray-actors",
    "[/red]", "\x1b[2J",
)  # fmt: skip


def command_line(seed: int, seen: Counter[str]) -> None:
    """Give the command words in any order: it ends with a code and a line, and prints no traceback or escape."""
    draw = random.Random(seed)
    words = [draw.choice(WORDS[:6]), *(draw.choice(WORDS[6:]) for _ in range(draw.randrange(7)))]
    out, said = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.callback(os.chdir, os.getcwd())
        os.chdir(folder)
        Path("prompts.jsonl").write_text('{"prompt": "How?"}\n')
        Path("bad.jsonl").write_bytes(b'{"prompt": 1}\n\xff{')
        Path("r.py").write_text("def score(prompt, response):\n    return 1.0\n")
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(said))
        try:
            code: object = main([*words, "--api-base", "http://127.0.0.1:9/v1"] if words[0] in ASKS else words)
        except SystemExit as end:
            code = end.code
    seen[f"code {code}"] += 1
    text = said.getvalue()
    assert code in (0, 1, 2), f"{words}: code {code}"
    assert "Traceback" not in text and "\x1b" not in text, f"{words}: {text}"
    assert code == 0 or text.strip(), f"{words}: not a word"


ASKS = ("run", "ask", "check")
