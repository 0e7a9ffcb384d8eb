"""What a refinement costs beside the calls of predictors that it makes: counted, since time depends on the machine."""

from __future__ import annotations

import dspy
import pytest
from counting import SELDOM, counting
from dspy.signatures.signature import SignatureMeta
from instant import scattered
from instant_lm import BareCalls, instant_lm

from tpo_dspy import TPO

COUNTED = {
    **SELDOM,
    SignatureMeta._get_fields_with_type.__code__: "lookups",
}


@pytest.fixture
def refined() -> TPO:
    dspy.configure(lm=instant_lm())
    return TPO(dspy.Predict("question -> answer"), scattered)


async def test_a_query_costs_hardly_more_look_ups_than_its_calls_and_hands_nothing_over(refined: TPO) -> None:
    bare = BareCalls.of(refined, question="How?")
    assert len(bare.made) == 19
    with counting(COUNTED) as host:
        await bare.acall()
    for _ in range(200):  # until the reward is known to be quick, and DSPy has its threads
        with counting(COUNTED) as ours:
            await refined.acall(question="How?")
        if ours["handovers"] <= host["handovers"] and not ours["threads"]:
            break
    assert ours["handovers"] <= host["handovers"] and not ours["threads"]
    assert ours["signatures"] <= host["signatures"] + 2
    assert ours["lookups"] <= 1.5 * host["lookups"]


def test_a_query_starts_no_more_threads_than_it_has_calls_at_once(refined: TPO) -> None:
    for _ in range(200):
        with counting(COUNTED) as ours:
            refined(question="How?")
        if ours["handovers"] <= 15:  # five samples, and twice five updates; what comes singly stays in this thread
            break
    assert ours["handovers"] <= 15 and ours["threads"] <= 5
