"""Drop-in for ``dspy.Refine``: after each attempt below the threshold, advice to each part of the program."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy

from tpo_core.drivers.serving import Ticket
from tpo_core.values import Candidate, Usage
from tpo_dspy.adapters import Sampling, salted
from tpo_dspy.best_of_n import BestOfN, Steps
from tpo_dspy.fields import show
from tpo_dspy.policy import usage_of
from tpo_dspy.search import Search

__all__ = ["Refine"]


class Advice(dspy.Signature):
    """A program was run and its result was graded below the mark it should reach. Find out which of its modules are to
    blame, and advise those. A module will be run again on inputs like these and sees nothing of this attempt, so tell
    it in full what went wrong in which situation and what to do there. Leave out modules that did well."""

    program: str = dspy.InputField(desc="the program's source")
    modules: str = dspy.InputField(desc="each module's name, fields and instructions")
    inputs: str = dspy.InputField(desc="what the program was given")
    steps: str = dspy.InputField(desc="what each module was given and said, in order")
    outputs: str = dspy.InputField(desc="the program's result")
    grading: str = dspy.InputField(desc="how results are graded")
    grade: float = dspy.InputField(desc="the grade of this result; higher is better")
    mark: float | None = dspy.InputField(desc="the grade to reach, where there is one")
    remarks: str = dspy.InputField(desc="what the grader said about this result, if anything")
    blame: str = dspy.OutputField(desc="what went wrong, and where")
    advice: dict[str, str] = dspy.OutputField(desc="advice by module name")


class Refine(BestOfN):
    """Runs a module up to N times, each time advised by what was wrong with the attempt before.

    The advice is written by the predictor ``feedback``, which optimizers tune with the rest; it is shown what the
    reward said beside its number. It reaches each predictor as a hint, by name, and leaves no mark in the trace.

    Args:
        module: What to run.
        N: Most attempts.
        reward_fn: As in ``BestOfN``.
        threshold: The first attempt that reaches it is the answer; None takes the best of N.
        fail_count: As in ``BestOfN``.
        replay: As in ``BestOfN``.
    """

    def __init__(
        self,
        module: dspy.Module,
        N: int,
        reward_fn: Any,
        threshold: float | None,
        fail_count: int | None = None,
        *,
        replay: bool = False,
    ) -> None:
        """Check the arguments and make the feedback predictor."""
        super().__init__(module, N, reward_fn, threshold, fail_count, max_concurrency=1, replay=replay)
        self.feedback = dspy.Predict(Advice)

    def _learn(self, search: Search, attempt: int) -> Steps:
        """Ask for advice on the last attempt, and give it to the next; without an answer it goes unadvised."""
        last = search.books.candidates[-1]
        if last.reward is None:
            return
        told = self._told(search, last)
        lm = self.feedback.lm or search.parts.lm
        outcome = yield _Ask(self.feedback, told, Sampling(salt=(attempt,)), lm)
        search.policy.rewrite = None
        if isinstance(outcome, tuple):  # and no exception
            answer, usage = outcome
            search.books.spend(usage, 1)
            search.policy.rewrite = _Hints(self.module, answer.advice or {})

    def _told(self, search: Search, last: Candidate) -> dict[str, Any]:
        names = {id(p): name for name, p in self.module.named_predictors()}
        steps = [
            {"module": names.get(id(p), type(p).__name__), "given": _texts(given), "said": _texts(dict(said.items()))}
            for p, given, said in search.policy.steps_of(last)
        ]
        return {
            "program": _source(type(self.module)),
            "modules": "\n\n".join(_described(name, p.signature) for name, p in self.module.named_predictors()),
            "inputs": json.dumps(_texts(search.inputs), ensure_ascii=False, indent=1),
            "steps": json.dumps(steps, ensure_ascii=False, indent=1),
            "outputs": last.response,
            "grading": _source(getattr(self.reward, "fn", type(self.reward))),
            "grade": last.reward,
            "mark": self.threshold,
            "remarks": last.feedback or "",
        }


class _Hints:
    """Adds each predictor's advice to what it is sent."""

    def __init__(self, module: dspy.Module, advice: Mapping[str, str]) -> None:
        self._advice = {id(p): advice[name] for name, p in module.named_predictors() if advice.get(name)}

    def __call__(self, signature: Any, inputs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        callers = dspy.settings.caller_modules or [None]
        hint = self._advice.get(id(callers[-1]))
        if hint is None:
            return signature, inputs
        field = dspy.InputField(desc="advice from an earlier attempt")
        return signature.append("hint_", field, str), {**inputs, "hint_": hint}


@dataclass(eq=False)
class _Ask(Ticket[Any]):
    """One question to the feedback predictor."""

    predictor: dspy.Predict
    told: Mapping[str, Any]
    sampling: Sampling
    lm: Any

    def call(self) -> tuple[dspy.Prediction, Usage]:
        """Ask."""
        with self._stage() as tracker:
            answer = self.predictor(**self.told)
        return answer, usage_of(tracker)

    async def acall(self) -> tuple[dspy.Prediction, Usage]:
        """Ask without blocking."""
        with self._stage() as tracker:
            answer = await self.predictor.acall(**self.told)
        return answer, usage_of(tracker)

    @contextmanager
    def _stage(self) -> Iterator[Any]:
        settings = {"lm": self.lm} if self.lm is not None else {}
        adapter = salted(dspy.settings.adapter, self.sampling)
        with dspy.track_usage() as tracker, dspy.context(adapter=adapter, trace=[], send_stream=None, **settings):
            yield tracker


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: show(value) for name, value in values.items()}


def _source(thing: Any) -> str:
    """Return a class's or function's source, or what is known where there is none (a notebook, ``exec``)."""
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        return inspect.getdoc(thing) or str(getattr(thing, "__name__", type(thing).__name__))


def _described(name: str, signature: type[dspy.Signature]) -> str:
    def fields(of: Mapping[str, Any]) -> str:
        return ", ".join(f"{k} ({(i.json_schema_extra or {}).get('desc', k)})" for k, i in of.items())

    given, said = fields(signature.input_fields), fields(signature.output_fields)
    return f"{name}: given {given}; says {said}\nInstructions: {signature.instructions}"
