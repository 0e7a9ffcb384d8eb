"""What people wrap and what they align to, in one table: it works, or it is refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

from tpo_core import TPOError
from tpo_core.rewards import Check, ChecksReward, LengthPenalty
from tpo_dspy import TPO

WORKS = "works"


class Rag(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.ChainOfThought("context, question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.respond(context=["a document"], question=question)


class Derives(Rag):
    def forward(self, question: str) -> dspy.Prediction:
        answer = super().forward(question).answer
        return dspy.Prediction(answer=answer, length=len(answer))


class Text(Rag):
    def forward(self, question: str) -> Any:
        return super().forward(question).answer


class HoldsAgent(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.agent = dspy.ReAct("question -> answer", tools=[len])

    def forward(self, question: str) -> dspy.Prediction:
        return self.agent(question=question)


class HoldsTPO(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.respond = TPO(dspy.ChainOfThought("question -> answer"), longer, width=2, depth=1)

    def forward(self, question: str) -> dspy.Prediction:
        return self.respond(question=question)


def longer(response: str) -> float:
    return len(response)


async def waits(prompt: str, response: str) -> float:
    return len(response)


PREDICT = dspy.Predict("question -> answer")
PROGRAMS: list[tuple[str, Callable[[], Any], dict[str, Any], str]] = [
    ("dspy.Predict", lambda: PREDICT, {}, WORKS),
    ("dspy.ChainOfThought", lambda: dspy.ChainOfThought("question -> answer"), {}, WORKS),
    ("a retrieving program", Rag, {}, WORKS),
    ("a program that derives a field", Derives, {}, WORKS),
    ("typed output", lambda: dspy.Predict("question -> answer: str, score: int"), {"fields": ["answer"]}, WORKS),
    ("TPO around TPO", lambda: TPO(PREDICT, longer, width=2, depth=1), {}, WORKS),
    ("a program that holds TPO", HoldsTPO, {}, WORKS),
    ("a program that returns text", Text, {}, "return dspy.Prediction"),
    ("an agent inside a program", HoldsAgent, {}, "rerun_tools=True"),
    ("a function", lambda: len, {}, "program must be a dspy.Module"),
    ("a field that is not there", lambda: PREDICT, {"fields": ["reply"]}, "fields names reply"),
    ("an unknown setting", lambda: PREDICT, {"widht": 2}, "did you mean width"),
    ("a depth below 0", lambda: PREDICT, {"depth": -1}, "depth must be an integer"),
]
REWARDS: list[tuple[str, Any, str]] = [
    ("(prompt, response)", lambda prompt, response: len(response), WORKS),
    ("(response)", lambda response: len(response), WORKS),
    ("(prompts, responses)", lambda prompts, responses: [len(r) for r in responses], WORKS),
    ("(example, pred, trace=None)", lambda example, pred, trace=None: len(pred.answer), WORKS),
    ("(args, pred)", lambda args, pred: len(pred.answer), WORKS),
    ("(inputs, outputs)", lambda inputs, outputs: len(outputs["answer"]), WORKS),
    ("async", waits, WORKS),
    ("number and feedback", lambda prompt, response: (len(response), "say more"), WORKS),
    ("checks", ChecksReward([Check("is long", lambda text: len(text) > 9)]), WORKS),
    ("a penalty on length", LengthPenalty(lambda response: 1.0, per_word=0.1), WORKS),
    ("a label", lambda example, pred, trace=None: float(example.answer == pred.answer), "labels are not known"),
    ("an attribute of a text", lambda prompt, response: len(response.answer), "given to (example, pred, trace=None)"),
    ("(inputs, output)", lambda inputs, output: len(output), "(inputs, outputs) takes"),
    ("(prompt, response, reference=None)", lambda prompt, response, reference=None: len(response), WORKS),
    ("(prompt, response, label=None)", lambda prompt, response, label=None: 1.0, "label would stay empty"),
    ("(response, prompt)", lambda response, prompt: 1.0, "comes first, where the prompt is given"),
    ("None", None, "reward must be a RewardModel"),
    ("a word", "helpful", "neither a model name"),
]
TABLE = [
    *(
        (f"program: {name}", make, lambda response: len(response), more, result)
        for name, make, more, result in PROGRAMS
    ),
    *((f"reward: {name}", lambda: PREDICT, reward, {}, result) for name, reward, result in REWARDS),
]


@pytest.mark.parametrize(("shape", "make", "reward", "more", "result"), TABLE, ids=[row[0] for row in TABLE])
def test_a_shape_works_or_is_refused_with_what_to_do(
    scripted: Any, shape: str, make: Any, reward: Any, more: dict[str, Any], result: str, record_property: Any
) -> None:
    rules: list[Any] = [
        ("improved_answer", {"improved_answer": "an improved answer"}),
        ("textual_gradient", "Say more."),
        ("textual_loss", "It says more."),
        ("answer", lambda prompt, number: {"reasoning": "r", "answer": "d" * number, "score": "3"}),
    ]
    dspy.configure(lm=scripted(rules), trace=[], adapter=None, callbacks=[], track_usage=False)
    given = {"width": 2, "depth": 1, **more}
    if result == WORKS:
        pred = TPO(make(), reward, **given)(question="why?")
        assert pred.answer and pred.tpo_trajectory.best.reward is not None
        record_property("shape", (shape, result))
        return
    with pytest.raises(TPOError) as caught:
        TPO(make(), reward, **given)(question="why?")
    assert result in str(caught.value), shape
    record_property("shape", (shape, f"refused: {caught.value}"))
