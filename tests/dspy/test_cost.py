"""What a refinement costs beside the calls of predictors that it makes: counted, since time depends on the machine."""

from __future__ import annotations

import dspy
import pytest
from counting import SELDOM, counting
from dspy.signatures.signature import SignatureMeta
from instant import scattered
from instant_lm import BareCalls, instant_lm

from tpo_dspy import TPO
from tpo_dspy.programs import named_predictors

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
    assert ours["lookups"] <= 1.2 * host["lookups"]
    assert ours["calls"] <= 1.4 * host["calls"]


def test_a_query_starts_no_threads_where_there_are_some_and_makes_one_of_calls_at_once_itself(refined: TPO) -> None:
    for _ in range(200):
        with counting(COUNTED) as ours:
            refined(question="How?")
        if ours["handovers"] <= 12 and not ours["threads"]:
            break  # four of five samples, and twice of five updates; what comes singly stays here
    assert ours["handovers"] <= 12 and not ours["threads"]


async def test_a_query_costs_no_more_after_many_others(refined: TPO) -> None:
    for _ in range(200):
        with counting(COUNTED) as before:
            await refined.acall(question="How?")
        if not before["threads"]:
            break
    for predictor in refined.predictors():
        predictor.history.extend([{}] * 5000)
    with counting(COUNTED) as after:
        await refined.acall(question="How?")
    assert after["calls"] <= before["calls"] + 1000  # of which a busy machine may cost some


def test_predictors_are_found_as_dspy_finds_them(refined: TPO) -> None:
    class Program(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = dspy.Predict("question -> answer")
            self.some = [dspy.ChainOfThought("question -> answer"), self.one, 1]
            self.others = {"a": dspy.ReAct("question -> answer", tools=[]), "b": refined}
            self.frozen = dspy.ChainOfThought("question -> answer")
            self.frozen._compiled = True

    for program in (Program(), refined, refined.program, dspy.ChainOfThought("question -> answer")):
        assert named_predictors(program) == program.named_predictors()
