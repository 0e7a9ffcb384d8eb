"""Drop-in for ``dspy.Refine``: after each attempt below the threshold, advice to each part of the program."""

from __future__ import annotations

import inspect
import json
import logging
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import dspy

from tpo_core.drivers.serving import Observer
from tpo_core.loop.effects import Generate
from tpo_core.masking import masked
from tpo_core.models.refusals import one_line
from tpo_core.records import repr_without_texts
from tpo_core.values import Candidate, Completion, Failure, Usage
from tpo_dspy.adapters import Sampling, salted
from tpo_dspy.best_of_n import BestOfN
from tpo_dspy.callbacks import Rounds
from tpo_dspy.fields import show
from tpo_dspy.policy import usage_of
from tpo_dspy.programs import named_predictors
from tpo_dspy.rewarded import without_self
from tpo_dspy.search import AttemptPolicy

__all__ = ["Refine"]

logger = logging.getLogger(__name__)


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
        max_calls: Budget: most attempts and advices together, 2N - 1 by default; a call that is left is an attempt.
        max_tokens: As in ``BestOfN``; likewise the rest.
        deadline: Budget: seconds from the first attempt to the answer.
        gold: A held-out reward.
        on_progress: Called with each ``Progress`` as it happens.
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
        max_calls: int | None = None,
        max_tokens: int | None = None,
        deadline: float | None = None,
        gold: Any = None,
        on_progress: Observer | None = None,
    ) -> None:
        """Check the arguments and make the feedback predictor."""
        super().__init__(
            module,
            N,
            reward_fn,
            threshold,
            fail_count,
            max_concurrency=1,
            replay=replay,
            max_calls=max_calls,
            max_tokens=max_tokens,
            deadline=deadline,
            gold=gold,
            on_progress=on_progress,
        )
        self.feedback = dspy.Predict(Advice)

    def _policy(self, inputs: dict[str, Any], rounds: Rounds) -> AttemptPolicy:
        return _AdvisedPolicy(self, inputs, rounds)

    @property
    def _calls(self) -> int:
        """Return the calls of N attempts with an advice between each two."""
        return 2 * self.N - 1


class _AdvisedPolicy(AttemptPolicy):
    """Asks for advice on the last attempt before each further one; without an answer that goes unadvised."""

    def __init__(self, refine: Refine, inputs: dict[str, Any], rounds: Rounds) -> None:
        super().__init__(refine.module, inputs, rounds, replay=refine.replay)
        self._module, self._feedback = refine.module, refine.feedback
        self._reward, self._threshold = refine.reward, refine.threshold

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Ask for advice, and run the module with it."""
        if (last := self._to_improve(request)) is None:
            return super().generate(request, seeds)
        with self._advice(last) as advice:
            advice.answer = self._feedback(**advice.question)
        try:
            return advice.added(super().generate(request, seeds))
        except Exception as error:  # noqa: BLE001 - a failed attempt, whose advice is paid for all the same
            return advice.added([_failed(error)])

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Ask for advice, and run the module with it, without blocking."""
        if (last := self._to_improve(request)) is None:
            return await super().agenerate(request, seeds)
        with self._advice(last) as advice:
            advice.answer = await self._feedback.acall(**advice.question)
        try:
            return advice.added(await super().agenerate(request, seeds))
        except Exception as error:  # noqa: BLE001 - a failed attempt, whose advice is paid for all the same
            return advice.added([_failed(error)])

    def _to_improve(self, request: Generate) -> Candidate | None:
        """Return the last attempt where it has a reward, and the call budget allows advice and another attempt."""
        last = self.attempts[-1] if self.attempts else None
        return None if last is None or last.reward is None or request.spare == 0 else last

    @contextmanager
    def _advice(self, last: Candidate) -> Iterator[_Advised]:
        """Open the context that the feedback predictor is called in, and take its advice from there."""
        advice, lm = _Advised(self._question(last)), self._feedback.lm or self.lm
        settings = {"lm": lm} if lm is not None else {}
        adapter = salted(dspy.settings.adapter, Sampling(salt=(len(self.attempts),)))
        self.rewrite = None
        with dspy.track_usage() as tracker, dspy.context(adapter=adapter, trace=[], send_stream=None, **settings):
            try:
                yield advice
                self.rewrite = _Hints(self._module, advice.answer.advice or {})
            except Exception as error:  # noqa: BLE001 - the next attempt goes unadvised
                logger.warning("no advice on attempt %d: %s", len(self.attempts), one_line(masked(error)))
        advice.usage = usage_of(tracker)

    def _question(self, last: Candidate) -> dict[str, Any]:
        names = {id(p): name for name, p in named_predictors(self._module)}
        steps = [
            {"module": names.get(id(p), type(p).__name__), "given": _texts(given), "said": _texts(dict(said.items()))}
            for p, given, said in self.steps_of(last)
        ]
        return {
            "program": _source(type(self._module)),
            "modules": "\n\n".join(_described(name, p.signature) for name, p in named_predictors(self._module)),
            "inputs": json.dumps(_texts(self.inputs), ensure_ascii=False, indent=1),
            "steps": json.dumps(steps, ensure_ascii=False, indent=1),
            "outputs": last.response,
            "grading": _source(getattr(self._reward, "fn", type(self._reward))),
            "grade": last.reward,
            "mark": None if self._threshold is None else float(self._threshold),
            "remarks": last.feedback or "",
        }


@dataclass
class _Advised:
    """One question to the feedback predictor, and what came of it."""

    question: dict[str, Any]
    answer: Any = None
    usage: Usage = field(default_factory=Usage)

    __repr__ = repr_without_texts()

    def added(self, completions: Sequence[Completion]) -> list[Completion]:
        """Return an attempt's completion with what the advice cost: two calls instead of one."""
        [completion] = completions
        requests = max(1, completion.usage.requests) + self.usage.requests
        usage = replace(completion.usage + self.usage, calls=2, requests=requests)
        return [replace(completion, usage=usage)]


def _failed(error: Exception) -> Completion:
    return Completion(failure=Failure("error", f"{type(error).__name__}: {error}", masked(error)))


class _Hints:
    """Adds each predictor's advice to what it is sent."""

    def __init__(self, module: dspy.Module, advice: Mapping[str, str]) -> None:
        self._advice = {id(p): advice[name] for name, p in named_predictors(module) if advice.get(name)}

    def __call__(self, signature: Any, inputs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        callers = dspy.settings.caller_modules or [None]
        hint = self._advice.get(id(callers[-1]))
        if hint is None:
            return signature, inputs
        field = dspy.InputField(desc="advice from an earlier attempt")
        return signature.append("hint_", field, str), {**inputs, "hint_": hint}


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


Refine.__signature__ = without_self(Refine)
