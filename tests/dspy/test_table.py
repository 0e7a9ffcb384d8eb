"""The table: every module that DSPy ships, through every adapter, sync and async."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dspy
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter

from tpo_dspy import TPO

Scripted = Callable[..., dspy.LM]
calls: list[str] = []


def look_up(topic: str) -> str:
    """Look a topic up."""
    calls.append(topic)
    return f"all about {topic}"


class InProcess:
    """A code interpreter in this process, so that the tool's calls can be counted."""

    tools: dict[str, Any] = {}  # noqa: RUF012 - the protocol's name

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"calls": calls}

    def start(self) -> None: ...

    def shutdown(self) -> None: ...

    def execute(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        exec(code, self.names)
        return self.names.get("result")


class Nested(dspy.Module):
    """Two predictors, each with a language model of its own."""

    def __init__(self, first: dspy.LM) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.plan.lm = first
        self.write = dspy.ChainOfThought("question, plan -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        plan = self.plan(question=question).plan
        return dspy.Prediction(plan=plan, **dict(self.write(question=question, plan=plan).items()))

    async def aforward(self, question: str) -> dspy.Prediction:
        plan = (await self.plan.acall(question=question)).plan
        return dspy.Prediction(plan=plan, **dict((await self.write.acall(question=question, plan=plan)).items()))


@dataclass
class Case:
    make: Callable[[dspy.LM], dspy.Module]
    keys: set[str]
    rules: list[Any] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    tools: int = 0


def answer(prompt: str, number: int) -> dict[str, Any]:
    return {"reasoning": "because", "rationale": "because", "answer": "draft " + "d" * number}


ATTEMPTS = [{"reasoning": f"r{n}", "answer": f"a{n}"} for n in range(3)]
CASES = {
    "Predict": Case(lambda lm: dspy.Predict("question -> answer"), {"answer"}, [("answer", {"answer": "x"})]),
    "ChainOfThought": Case(lambda lm: dspy.ChainOfThought("question -> answer"), {"reasoning", "answer"}),
    "MultiChainComparison": Case(
        lambda lm: dspy.MultiChainComparison("question -> answer"),
        {"rationale", "answer"},
        inputs={"completions": ATTEMPTS},
    ),
    "Nested": Case(Nested, {"plan", "reasoning", "answer"}),
    "ReAct": Case(
        lambda lm: dspy.ReAct("question -> answer", [look_up]),
        {"trajectory", "reasoning", "answer"},
        [
            ("next_tool_name", lambda prompt, number: _act("finish" if "all about" in prompt else "look_up")),
            ("answer", answer),
        ],
        tools=1,
    ),
    "CodeAct": Case(
        lambda lm: dspy.CodeAct("question -> answer", [look_up], interpreter_factory=InProcess),
        {"trajectory", "reasoning", "answer"},
        [
            ("finished", {"generated_code": "result = look_up('tea')", "finished": True}),
            ("answer", answer),
        ],
        tools=1,
    ),
    "RLM": Case(
        lambda lm: dspy.RLM("question -> answer", interpreter_factory=dspy.LocalInterpreter),
        {"answer", "trajectory", "final_reasoning"},
        [
            (
                "variables_info",
                lambda prompt, number: {"reasoning": "r", "code": f"```python\nSUBMIT('draft {'d' * number}')\n```"},
            )
        ],
    ),
    "ProgramOfThought": Case(
        lambda lm: dspy.ProgramOfThought("question -> answer", interpreter_factory=dspy.LocalInterpreter),
        {"reasoning", "answer"},
        [
            ("code_output", answer),
            ("generated_code", {"reasoning": "because", "generated_code": "result = 1 + 1"}),
        ],
    ),
}
STYLES = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": dspy.XMLAdapter,
    "baml": BAMLAdapter,
}


def _act(tool: str) -> dict[str, Any]:
    return {
        "next_thought": "look",
        "next_tool_name": tool,
        "next_tool_args": {"topic": "tea"} if tool == "look_up" else {},
    }


def copied_out(prompt: str, number: int) -> dict[str, Any]:
    """Be the model that a TwoStepAdapter has copy the fields out of the first one's text."""
    found = re.findall(r"\{\"(?:next_thought|reasoning|rationale|answer|plan|generated_code|code).*\}", prompt)
    return dict(json.loads(found[-1]))


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("style", [*STYLES, "two-step"])
@pytest.mark.parametrize("name", CASES)
async def test_every_module_is_refined_through_every_adapter(
    scripted: Scripted, name: str, style: str, way: str
) -> None:
    case = CASES[name]
    rules = [
        ("improved_answer", lambda prompt, number: "a better answer " + "i" * number),
        ("textual_gradient", "Write more."),
        ("textual_loss", "The chosen one says more."),
        *(case.rules if name != "Predict" else [("answer", lambda p, n: {"answer": "d" * n})]),
        ("plan, `", answer),
        ("`plan`", lambda p, n: answer(p, n) if "`answer`" in p else {"plan": "first think"}),
        ("answer", answer),
    ]
    two_step = style == "two-step"
    lm = scripted(rules, style="json" if two_step else style)
    adapter = dspy.TwoStepAdapter(scripted([("", copied_out)])) if two_step else STYLES[style]()
    calls.clear()
    with dspy.context(lm=lm, adapter=adapter, trace=[]):
        refined = TPO(case.make(lm), lambda prompt, response: len(response), width=3, depth=1)
        inputs = {"question": "why tea?", **case.inputs}
        prediction = refined(**inputs) if way == "sync" else await refined.acall(**inputs)
        traced = {id(step[0]) for step in dspy.settings.trace}
    trajectory = prediction.tpo_trajectory
    assert type(prediction) is dspy.Prediction and set(prediction.keys()) == case.keys
    assert prediction.answer.startswith("a better answer") and trajectory.query == "why tea?"
    assert len({c.response for c in trajectory.candidates}) == 6 and not trajectory.failures
    assert len(calls) == case.tools
    unused = ("previous_code", "extract the final outputs now")  # asked only when code failed
    assert traced == {id(p) for p in refined.predictors() if not any(u in str(p.signature) for u in unused)}
    if case.tools:
        assert isinstance(prediction.trajectory, dict) and "all about tea" in str(prediction.trajectory)
        assert "all about tea" in next(p for p in lm.engine.prompts if "improved_answer" in p)


@pytest.mark.parametrize("style", STYLES)
def test_several_typed_fields_are_rewritten_through_every_adapter(scripted: Scripted, style: str) -> None:
    signature = dspy.Signature("ticket -> urgency: Literal['low', 'high'], tags: list[str], reply")
    first = {"urgency": "low", "tags": ["a"], "reply": "no"}
    better = {"improved_urgency": "high", "improved_tags": ["a", "b"], "improved_reply": "we are on our way"}
    rules = [("improved_urgency", better), ("textual_gradient", "Help."), ("textual_loss", "So."), ("urgency", first)]
    with dspy.context(lm=scripted(rules, style=style), adapter=STYLES[style]()):
        refined = TPO(
            dspy.Predict(signature), lambda prompt, response: len(response), width=2, depth=1, mode="revision"
        )
        prediction = refined(ticket="The door is stuck.")
    assert dict(prediction.items()) == {"urgency": "high", "tags": ["a", "b"], "reply": "we are on our way"}
    assert prediction.trajectory.best.response == 'urgency: high\n\ntags: ["a", "b"]\n\nreply: we are on our way'
