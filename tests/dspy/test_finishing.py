"""An update goes through the program's own end: what forward makes of an answer is the update's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import dspy
import pytest

from tpo_core import GenerationError, InvalidInputError
from tpo_dspy import TPO

Scripted = Callable[..., dspy.LM]


def longer(prompt: str, response: str) -> float:
    return len(response)


@pytest.fixture
def lm(scripted: Scripted) -> dspy.LM:
    lm = scripted(
        [
            ("improved_", lambda prompt, number: f"improved {number} [2] and so on, at length"),
            ("textual_gradient", "Say more."),
            ("textual_loss", "It says more."),
            ("search_terms", {"search_terms": "sky blue"}),
            ("a_title", {"a_title": "a title"}),
            ("answer", lambda prompt, number: {"answer": f"{'d' * number} [1]"}),
        ]
    )
    dspy.configure(lm=lm, trace=[], adapter=None, callbacks=[], track_usage=False)
    return lm


class Derives(dspy.Module):
    """Asks for search terms, retrieves, answers, and derives from the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.terms = dspy.Predict("question -> search_terms")
        self.retrieve = dspy.Retrieve(k=1)
        self.respond = dspy.Predict("context, question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        terms = self.terms(question=question).search_terms
        passages = self.retrieve(terms).passages
        answer = self.respond(context=passages, question=question).answer
        cited = [int(number) for number in "123" if f"[{number}]" in answer]
        return dspy.Prediction(answer=answer, length=len(answer), cited=cited, passages=passages)


class ADerives(Derives):
    async def aforward(self, question: str) -> dspy.Prediction:
        terms = (await self.terms.acall(question=question)).search_terms
        passages = self.retrieve(terms).passages
        answer = (await self.respond.acall(context=passages, question=question)).answer
        return dspy.Prediction(answer=answer, length=len(answer), cited=["async"], passages=passages)


class Passages:
    """A retriever that finds another passage each time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, query: str, k: int) -> list[Any]:
        self.asked += 1
        return [dspy.Example(long_text=f"passage {self.asked} of {query}")]


@pytest.mark.parametrize("program", [Derives(), ADerives()])
@pytest.mark.parametrize("sync", [True, False])
def test_derived_fields_are_the_updates_own_and_nothing_before_is_asked_again(
    lm: dspy.LM, program: dspy.Module, sync: bool
) -> None:
    passages = Passages()
    refined = TPO(program, longer, width=2, depth=2)
    with dspy.context(rm=passages):
        pred = refined(question="why?") if sync else asyncio.run(refined.acall(question="why?"))
    assert pred.answer.startswith("improved") and pred.length == len(pred.answer)
    assert pred.cited == (["async"] if isinstance(program, ADerives) and not sync else [2])
    assert passages.asked == 2 and lm.engine.asked("search_terms") == 2  # by the two samples alone
    first = [c for c in pred.tpo_trajectory.candidates if c.fresh]
    assert pred.passages in [c.value.passages for c in first]
    assert lm.engine.asked("improved_answer") == 4


class Renames(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(summary=self.respond(question=question).answer)


def test_a_renamed_field_is_refined_under_its_own_name(scripted: Scripted) -> None:
    rules = [("improved_summary", "an improved and longer one"), ("textual_gradient", "g"), ("textual_loss", "l")]
    with dspy.context(lm=scripted([*rules, ("answer", lambda p, n: {"reasoning": "r", "answer": "d" * n})])):
        pred = TPO(Renames(), longer, width=2, depth=1, fields=["summary"])(question="why?")
    assert pred.summary == "an improved and longer one"


class Strict(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        pred = self.respond(question=question)
        if len(pred.answer) > 30:
            raise ValueError("the answer is too long to be printed")
        return pred


def test_what_forward_refuses_is_no_candidate(lm: dspy.LM) -> None:
    trajectory = TPO(Strict(), longer, width=2, depth=1)(question="why?").trajectory
    updates = [c for c in trajectory.candidates if not c.fresh]
    assert updates and all("too long to be printed" in c.failure.message for c in updates if c.failure)
    assert all(c.failure is not None for c in updates) and len(trajectory.best.response) <= 30


class Strips(Strict):
    def forward(self, question: str) -> dspy.Prediction:
        answer = self.respond(question=question).answer.replace("[1]", "(1)")
        return dspy.Prediction(answer=answer.strip())


class Adds(Strict):
    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=self.respond(question=question).answer + "\n\nSources: [1]")


class Titles(Strict):
    def __init__(self) -> None:
        super().__init__()
        self.title = dspy.Predict("answer -> a_title")

    def forward(self, question: str) -> dspy.Prediction:
        answer = self.respond(question=question).answer
        return dspy.Prediction(answer=answer, a_title=self.title(answer=answer).a_title)


class Joins(Strict):
    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(both=question + self.respond(question=question).answer)


def test_what_is_the_same_when_done_twice_may_be_done_to_an_update(lm: dspy.LM) -> None:
    pred = TPO(Strips(), longer, width=2, depth=1)(question="why?")
    assert pred.answer.startswith("improved") and "[2]" in pred.answer


@pytest.mark.parametrize(
    ("program", "fields", "said"),
    [
        (Adds(), None, "would add it twice"),
        (Titles(), ["answer"], "after the answer is written"),
        (Joins(), ["both"], "which forward makes of what its last predictor wrote"),
    ],
)
def test_where_an_update_cannot_go_through_forward_an_error_asks_for_finish(
    lm: dspy.LM, program: dspy.Module, fields: list[str] | None, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said) as caught:
        TPO(program, longer, width=2, depth=1, fields=fields)(question="why?")
    assert "give finish=" in str(caught.value) and caught.value.best is not None

    def finish(prediction: dspy.Prediction, inputs: dspy.Example) -> dspy.Prediction:
        return prediction.copy(finished=inputs.question)

    pred = TPO(program, longer, width=2, depth=1, fields=fields, finish=finish)(question="why?")
    assert pred.finished == "why?" and "improved" in pred.tpo_trajectory.best.response


class Branches(Strict):
    def __init__(self) -> None:
        super().__init__()
        self.fix = dspy.Predict("draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        pred = self.respond(question=question)
        return self.fix(draft=pred.answer) if pred.answer.startswith("improved") else pred


def test_an_update_that_takes_another_way_costs_only_itself(lm: dspy.LM) -> None:
    trajectory = TPO(Branches(), longer, width=2, depth=1, fields=["answer"])(question="why?").trajectory
    failed = [c.failure for c in trajectory.candidates if not c.fresh]
    assert failed and all("took a way through forward" in failure.message for failure in failed)
    assert not isinstance(trajectory.best.failure, GenerationError)


def test_finish_must_be_a_function(lm: dspy.LM) -> None:
    with pytest.raises(InvalidInputError, match="finish must be a function"):
        TPO(Strict(), longer, finish="x")
