"""A model's text of a megabyte, of whatever kind, is read in time that grows with it and no faster.

Readers run with the interpreter's lock held, so one that takes quadratic time stops every other call with it. Processor
time is measured, which other programs do not use up; a reader that would run for minutes is interrupted.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal

import dspy
import litellm
import pytest
from langchain_core.messages import AIMessage

from tpo_core import TPOError
from tpo_core.cli.text import clean
from tpo_core.masking import hide
from tpo_core.models.token_reports import least_tokens
from tpo_core.prompts.control_tokens import join_control_tokens, split_control_tokens
from tpo_core.prompts.modeltext import after_reasoning, pieces, read_json, trim
from tpo_core.prompts.reading import read, refuse, unecho
from tpo_core.prompts.rendering import fence, shorten, show_query
from tpo_core.prompts.signatures import TextualLoss, Update
from tpo_core.rewards import FunctionReward, LengthPenalty
from tpo_core.rewards.families.messages import plain_messages, without_mark, without_thinking
from tpo_core.rewards.hosts.reading import response_of
from tpo_core.rewards.judge.verdicts import expected_grade, log_odds, read_choice, read_grade, says_tie
from tpo_dspy.adapters import Sampling, lenient, salted
from tpo_langchain import convert, streaming
from tpo_litellm import wire

SIZE = 2**20
ENOUGH = 0.5
"""Seconds of processor time from which on a reading is compared with that of a sixteenth of the text."""
TICK = 0.01
"""Seconds that a clock of processor time may not tell apart."""
LIMIT = 60.0
"""Seconds in which a megabyte is certainly not read in quadratic time: that takes 2**40 steps."""

SHOWN = {
    "query": fence("How?", "query"),
    "chosen_response": fence("1 2 3 " * 1000),
    "editing_instructions": fence("be brief", "instructions"),
}
WRITTEN = dspy.Signature("chosen_response, textual_gradient -> improved_response")
TYPED = dspy.Signature("question -> improved_answer: dict[str, int]")
CHOSEN = dspy.Signature("question -> answer: Literal['+', '*']", custom_types={"Literal": Literal})
SAMPLING = Sampling(salt=(1,), forgiving=True, shown=SHOWN)
SHORTER = LengthPenalty(FunctionReward(lambda prompt, response: 1.0), per_word=0.1)


def completed(text: str) -> litellm.ModelResponse:
    message = litellm.Message(role="assistant", content=text)
    return litellm.ModelResponse(choices=[litellm.Choices(message=message)], usage=litellm.Usage())


READERS: dict[str, Callable[[str], Any]] = {
    "fence": fence,
    "fence of another name": lambda text: fence(text, "a"),
    "split_control_tokens": split_control_tokens,
    "join_control_tokens": join_control_tokens,
    "shorten": lambda text: shorten(text, 1000),
    "show_query": show_query,
    "show_query of parts": lambda text: show_query([{"role": "user", "content": [{"type": "text", "text": text}]}]),
    "read": lambda text: read(Update, text),
    "read with what was shown": lambda text: read(Update, text, SHOWN),
    "read with itself shown": lambda text: read(TextualLoss, text, {"query": fence(text, "query")}),
    "unecho": lambda text: unecho(text, SHOWN),
    "refuse": refuse,
    "trim": trim,
    "after_reasoning": after_reasoning,
    "read_json": read_json,
    "pieces": pieces,
    "clean": clean,
    "hide": hide,
    "least_tokens": least_tokens,
    "without_thinking": without_thinking,
    "without_mark": lambda text: without_mark(text, "<extra_0>"),
    "plain_messages": plain_messages,
    "response_of": response_of,
    "read_grade": lambda text: read_grade(text, 1, 9),
    "read_grade of a response that says much": lambda text: read_grade(text, 1, 9, judged=text),
    "read_grade of what broke off": lambda text: read_grade(text, 1, 9, cut=True),
    "read_choice": lambda text: read_choice(text, ("A", "B")),
    "says_tie": says_tie,
    "log_odds": lambda text: log_odds([{text: -0.1, "Yes": -2.0}], "Yes", "No"),
    "expected_grade": lambda text: expected_grade([{text: -0.1}, {"7": -0.1}], 1, 9),
    "LengthPenalty": lambda text: SHORTER.score("q", [text]),
    "DSPy's adapter, a text": lambda text: lenient(None, SAMPLING).parse(WRITTEN, text),
    "DSPy's adapter, data": lambda text: lenient(None, SAMPLING).parse(TYPED, text),
    "DSPy's adapter, a choice": lambda text: lenient(None, SAMPLING).parse(CHOSEN, text),
    "DSPy's adapter, a sample": lambda text: salted(None, SAMPLING).parse(WRITTEN, text),
    "LangChain's text": convert.text_of,
    "LangChain's message": lambda text: convert.text_of(AIMessage(text)),
    "LangChain's data": lambda text: convert.remaker(None)(text, {"answer": 1}),
    "LangChain's chunks": lambda text: list(streaming.chunks(text)),
    "litellm's chunks": lambda text: list(wire.chunks(completed(text))),
}
RUNS = [
    " ",
    "\n",
    "<a>",
    "<response>\n",
    "1",
    ":",
    "[",
    "[[ ## ",
    "`",
    "<think>",
    "A is better ",
    "grade 1/",
    "\ud800",
    "response-%d>",
    "<\u200b",
    "<|a",
]
"""Texts of one thing, by what is repeated in them, numbered where it says so."""
PARTS = [
    *("\t \n", "x", "9/", "1.", ",", "-", "- ", "*", "#", "{", "[{", '"', "\\", '\\"', ". ", "'", "…", ".", "@"),
    *('{"a"', '{"a":', '["', '"a",', "```", "\n```json\n", "ſ", "É", "</", "<a", "<<", "<", "a\n", "a b ", "\u3000"),
    *("</a>", "response>", "</response>", "response-1", "response-22>", "response ", "a-1>", "\r\n", "&key=", "\x1b["),
    *("[[ ## improved_response ## ]]\n", "[[ ## completed ## ]]\n", "\n# Query\n<query>\nHow?\n</query>", "bearer "),
    *("<improved_response>", "</improved_response>", "\n# Chosen response\n<response>\n1 2 3", "\n#Rewrite\n"),
    *("</think>\n", "<think></think>", "<think>\n</think>\n", "\n</think>\n<think>", "<thinking>", "http://"),
    *("grade %d ", "A ", "A: ", "A:\n", "Grade: 1 ", "my final ", "verdict ", "tie ", "is ", "the "),
]
NESTED = [("[", "]"), ('{"a":', "}"), ("<response>", "</response>"), ("<think>", "</think>"), ("<extra_0", ">")]
"""What is opened again and again, and what closes it."""
BEFORE = ["", "A is ", "[", '{"a": "', "1", "answer\n\n# Chosen response\n<response>\n"]
"""Where a hostile text may begin like a good one."""


def hostile(part: str, before: str, size: int) -> str:
    """Repeat a part, numbered where it has a place for a number; what ends otherwise than it began is the harder."""
    if "%d" in part:
        numbered = (part % number for number in range(size // (len(part) + 3)))
        return "".join([part.replace("-%d", ""), *numbered])
    return before + part * (size // len(part)) + ("" if before == part else "x")


def nested(left: str, right: str, size: int) -> str:
    depth = size // len(left + right)
    return left * depth + right * depth


@contextmanager
def interrupted() -> Iterator[None]:
    """Stop what uses more processor time than any linear reader; regular expressions can be interrupted, too."""

    def stop(*_: Any) -> None:
        pytest.fail(f"not read in {LIMIT:.0f} s of processor time")

    earlier = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, earlier)


def cost(reader: Callable[[str], Any], text: str, times: int = 1) -> float:
    """Return the least processor time of several readings, whether or not the text can be read."""
    least = math.inf
    for _ in range(times):
        started = time.process_time()
        with suppress(TPOError, ValueError, dspy.AdapterParseError):
            reader(text)
        least = min(least, time.process_time() - started)
    return least


def check(reader: Callable[[str], Any], size: int, write: Callable[[int], str]) -> None:
    with interrupted():
        if cost(reader, write(size)) > ENOUGH:
            small, large = (cost(reader, write(s), 3) for s in (size // 16, size))
            assert large < 64 * max(small, TICK), write(50)  # 16 where it is linear, 256 where it is quadratic


@pytest.mark.parametrize("name", READERS)
def test_a_megabyte_is_read_in_linear_time(name: str) -> None:
    for part in RUNS:
        check(READERS[name], SIZE, partial(hostile, part, ""))


@pytest.mark.parametrize("name", READERS)
def test_what_begins_well_and_goes_on_badly_is_read_in_linear_time(name: str) -> None:
    for part in (*RUNS, *PARTS):
        for before in (*BEFORE, part) if len(part) < 2 else BEFORE[:1]:
            check(READERS[name], SIZE // 16, partial(hostile, part, before))


@pytest.mark.parametrize("name", READERS)
def test_what_is_nested_deep_is_read_in_linear_time(name: str) -> None:
    for left, right in NESTED:
        check(READERS[name], SIZE // 4, partial(nested, left, right))
