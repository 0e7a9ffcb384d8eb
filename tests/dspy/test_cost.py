"""What a refinement costs beside the calls of predictors that it makes: counted, since time depends on the machine."""

from __future__ import annotations

import inspect
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dspy
import pytest
from dspy.signatures.signature import SignatureMeta
from instant import scattered
from instant_lm import BareCalls, instant_lm

from tpo_core.threads import Threads
from tpo_dspy import TPO

COUNTED = {
    inspect.Signature.from_callable.__func__.__code__: "signatures",  # type: ignore[attr-defined]
    SignatureMeta._get_fields_with_type.__code__: "lookups",
    threading.Thread.start.__code__: "threads",
    ThreadPoolExecutor.submit.__code__: "handovers",
    Threads.submit.__code__: "handovers",
}


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the calls of what should be called seldom, in this thread."""
    calls: Counter[str] = Counter()

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and (name := COUNTED.get(frame.f_code)):
            calls[name] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.fixture
def refined() -> TPO:
    dspy.configure(lm=instant_lm())
    return TPO(dspy.Predict("question -> answer"), scattered)


async def test_a_query_costs_hardly_more_look_ups_than_its_calls_and_hands_nothing_over(refined: TPO) -> None:
    bare = BareCalls.of(refined, question="How?")
    assert len(bare.made) == 19
    with counting() as host:
        await bare.acall()
    for _ in range(200):  # until the reward is known to be quick, and DSPy has its threads
        with counting() as ours:
            await refined.acall(question="How?")
        if ours["handovers"] <= host["handovers"] and not ours["threads"]:
            break
    assert ours["handovers"] <= host["handovers"] and not ours["threads"]
    assert ours["signatures"] <= host["signatures"] + 2
    assert ours["lookups"] <= 1.5 * host["lookups"]


def test_a_query_starts_no_more_threads_than_it_has_calls_at_once(refined: TPO) -> None:
    for _ in range(200):
        with counting() as ours:
            refined(question="How?")
        if ours["handovers"] <= 15:  # five samples, and twice five updates; what comes singly stays in this thread
            break
    assert ours["handovers"] <= 15 and ours["threads"] <= 5
