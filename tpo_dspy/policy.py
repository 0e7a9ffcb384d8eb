"""One run's policy: ``Generate`` answered by the user's program and by the loss, gradient and update predictors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dspy

from tpo_core.errors import InvalidInputError
from tpo_core.loop.effects import Generate, Task
from tpo_core.masking import Secrets
from tpo_core.records import repr_without_texts
from tpo_core.threads import in_thread
from tpo_core.trajectory import Trajectory
from tpo_core.values import Candidate, Completion, Failure, Step, Usage
from tpo_dspy.adapters import Sampling, lenient, salted
from tpo_dspy.agents import Agent
from tpo_dspy.callbacks import Request, Rounds, is_async, named
from tpo_dspy.fields import Shape, seen_text
from tpo_dspy.finishing import Ending, Finish, Found, Made
from tpo_dspy.programs import predictors_of

__all__ = ["Modules", "ProgramPolicy", "usage_of"]

Trace = list[tuple[Any, dict[str, Any], Any]]

REJECTED = "rejected_response"


@dataclass(frozen=True)
class Modules:
    """What a TPO module is made of, as its runs see it."""

    program: dspy.Module
    shape: Shape
    loss: dspy.Predict | None
    gradient: dspy.Predict | None
    update: dspy.Predict | None
    lm: Any = None
    """The program's own language model, for prompts that have none; None for the one in the settings."""
    final: dspy.Module | None = None
    """The part of an agent that writes its answer."""
    forgiving: bool = True
    """Whether the program's answers are read as leniently as the engine's; see ``Sampling.forgiving``."""
    finish: Finish | None = None
    """Makes the Prediction of an update, instead of the program's ``forward``."""
    contextual: bool = False
    """Whether each sample keeps what its last predictor was given; see ``Candidate.context``."""
    derives: bool = False
    """Whether updates go through the program's ``forward``; see ``finishing.derives``."""

    __repr__ = repr_without_texts()

    def alone(self) -> dspy.Predict:
        """Return the loss's stand-in where a response is critiqued alone; optimizers do not tune it."""
        predictor = dspy.Predict(self.shape.loss(contrast=False, merged=self.gradient is None))
        predictor.lm = getattr(self.loss, "lm", None)
        return predictor

    def lms(self) -> list[Any]:
        """Return the language models that may be asked."""
        predictors = [*predictors_of(self.program), self.loss, self.gradient, self.update]
        return [lm for lm in (dspy.settings.lm, self.lm, *(getattr(p, "lm", None) for p in predictors)) if lm]


class ProgramPolicy:
    """Answers one run's requests; see ``tpo_core.models.policy.Policy``.

    The program is never copied and never changed: optimizers find its predictors by identity, and several runs may be
    under way at once. Samples differ by what the adapter sends (``tpo_dspy.adapters``).
    """

    fatal: tuple[type[Exception], ...] = ()

    def __init__(self, modules: Modules, inputs: Mapping[str, Any], rounds: Rounds) -> None:
        """Take what one call was given."""
        self.takes_n: MutableMapping[Task, bool] = dict.fromkeys(("sample", "loss", "gradient", "update"), False)
        self._modules, self._inputs, self._rounds = modules, dict(inputs), rounds
        self._secrets = [Secrets(**getattr(lm, "kwargs", {})) for lm in modules.lms()]  # hidden as long as this runs
        self._agent = None if modules.final is None else Agent(modules.program, modules.final)
        self._traces: dict[int, Trace] = {}  # by the id of the object that came of it; the candidates keep those alive
        self._critiques: dict[tuple[str, int, str], Trace] = {}  # by task, round and text
        self._made: dict[int, Made] = {}  # likewise, of programs whose forward may derive from the answer
        self.rewrite: Any = None
        """Changes what the program's predictors are sent; see ``Sampling.rewrite``."""

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Run the program, or the task's predictor, once."""
        return [self._rounds.run(request.step, lambda: self._answer(request, seeds[0]))]

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Run the program, or the task's predictor, once, without blocking."""
        return [await self._rounds.arun(request.step, lambda: self._aanswer(request, seeds[0]))]

    def _answer(self, request: Generate, seed: int) -> Completion:
        ask = self._ask(request, seed)
        with ask.open():
            ask.value = ask.module(**ask.inputs)
        return self._completion(ask)

    async def _aanswer(self, request: Generate, seed: int) -> Completion:
        ask = self._ask(request, seed)
        with ask.open():
            ask.value = await ask.module.acall(**ask.inputs)
        return self._completion(ask)

    def steps_of(self, candidate: Candidate) -> Trace:
        """Return the steps of the call that made a candidate."""
        return self._traces.get(id(candidate.value), [])

    def path_to(self, trajectory: Trajectory) -> Trace:
        """Return the steps that led to the best candidate, in DSPy's trace format.

        Where no round gained anything, the last round follows them: optimizers learn from what did not help, too.
        """
        steps, path = trajectory.steps, Trace()
        at: Candidate | None = trajectory.best
        while at is not None:
            path = [*self._round(at, steps), *path]
            at = None if at.critique is None else steps[at.critique].chosen
        if trajectory.best.fresh and steps:
            number = steps[-1].step
            tried = [c for c in trajectory.candidates if c.step == number and not c.fresh and c.reward is not None]
            last = max(tried, key=lambda c: c.reward or 0.0, default=None)
            path += self._round(last, steps) if last is not None else self._critique(steps[-1])
        return path

    def _round(self, candidate: Candidate, steps: Sequence[Step]) -> Trace:
        made = self.steps_of(candidate)
        return made if candidate.critique is None else [*self._critique(steps[candidate.critique]), *made]

    def _critique(self, step: Step) -> Trace:
        loss = self._critiques.get(("loss", step.step, step.loss or step.gradient), [])
        return [*loss, *self._critiques.get(("gradient", step.step, step.gradient), [])]

    def _ask(self, request: Generate, seed: int) -> _ModuleCall:
        sampling = Sampling(
            salt=(seed,),
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            seed=seed if request.send_seed else None,
            forgiving=self._modules.forgiving,
            rewrite=self.rewrite if request.task == "sample" else None,
            shown={} if request.task == "sample" else request.inputs,
        )
        if request.task == "sample":
            return self._ask_program(request, sampling)
        parent = request.parent if request.task == "update" else None
        answers: Any = getattr(self._modules, request.task) if parent is None else self._ending(parent)
        if self._alone(request):
            answers = self._modules.alone()
        told = {**self._context(), **request.inputs}
        module = named(request.task)(answers, answers.acall)
        return _ModuleCall(request, module, told, lenient(dspy.settings.adapter, sampling), self._modules.lm)

    def _ask_program(self, request: Generate, sampling: Sampling) -> _ModuleCall:
        program: Any = self._agent or _Program(self._modules.program)
        module = named("sample")(program, program.acall)
        if self._agent is not None:
            sampling = self._agent.watched(sampling)
        lm = _drawn(dspy.settings.lm, sampling)
        return _ModuleCall(request, module, self._inputs, salted(dspy.settings.adapter, sampling), lm)

    def _alone(self, request: Generate) -> bool:
        """Return whether a response is critiqued alone by a loss whose prompt is about two: where none is worse."""
        if request.task != "loss" or REJECTED in request.inputs or self._modules.loss is None:
            return False
        return any(REJECTED in predictor.signature.input_fields for predictor in self._modules.loss.predictors())

    def _context(self) -> dict[str, Any]:
        given = {**self._inputs, **(self._agent.told if self._agent is not None else {})}
        return {name: given[name] for name in self._modules.shape.context if given.get(name) is not None}

    def _completion(self, ask: _ModuleCall) -> Completion:
        request = ask.request
        if ask.failure is not None:
            return Completion(failure=ask.failure, usage=ask.usage, finish_reason=ask.finish_reason)
        if request.task in ("loss", "gradient"):
            text = str(list(ask.value.values())[-1] or "")  # the last field: reasoning may stand before it
            self._critiques[request.task, request.step, text] = [] if self._alone(request) else ask.trace
            return Completion(text, usage=ask.usage, finish_reason=ask.finish_reason)
        value = ask.value
        try:
            text = self._modules.shape.response(value)
        except InvalidInputError as error:  # perhaps only this sample took a way out that gives another Prediction
            return Completion(failure=Failure("unparsable", str(error), error), usage=ask.usage)
        self._traces[id(value)] = ask.trace
        if self._modules.derives and request.task == "sample":
            self._made[id(value)] = Made(list(ask.trace), value, ask.found)
        elif request.parent is not None and id(request.parent.value) in self._made:
            self._made[id(value)] = self._made[id(request.parent.value)]
        seen = self._seen(ask.trace) if request.task == "sample" and self._modules.contextual else None
        return Completion(text, value, usage=ask.usage, finish_reason=ask.finish_reason, context=seen)

    def _seen(self, trace: Trace) -> str | None:
        """Write what the sample's answer was made from; None where that is the call's inputs and no more."""
        outputs = self._modules.shape.outputs
        wrote = [step for step in trace if any(name in step[2] for name in outputs)] or trace
        return None if not wrote else seen_text(self._inputs, wrote[-1][1])

    def _ending(self, parent: Candidate) -> Ending:
        """Return the update's predictor, with the program's own end for what rewrites ``parent``."""
        modules = self._modules
        return Ending(
            modules.update,
            modules.program,
            self._inputs,
            parent.value,
            modules.shape.improved,
            self._made.get(id(parent.value)),
            None if modules.finish is None else partial(self._finished, modules.finish),
        )

    def _finished(self, finish: Finish, prediction: dspy.Prediction) -> dspy.Prediction:
        return finish(prediction, dspy.Example(**self._inputs).with_inputs(*self._inputs))


@dataclass
class _ModuleCall:
    """One request on its way: what is run, where, and what came of it."""

    request: Generate
    module: Request
    inputs: Mapping[str, Any]
    adapter: dspy.Adapter
    lm: Any
    value: Any = None
    failure: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    trace: Trace = field(default_factory=list)
    found: Found = field(default_factory=lambda: Found(dspy.settings.rm))

    __repr__ = repr_without_texts()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Set the stage, and note what the call left behind. Nothing is streamed: samples would interleave."""
        settings = {"adapter": self.adapter, "trace": self.trace, "send_stream": None}
        if self.lm is not None:
            settings["lm"] = self.lm
        if self.found.retriever is not None:
            settings["rm"] = self.found
        with dspy.track_usage() as tracker, dspy.context(**settings):
            try:
                yield
            except dspy.AdapterParseError as error:
                self.failure = _unparsed(error)
        self.usage = usage_of(tracker)

    @property
    def finish_reason(self) -> str | None:
        """Return why the last model call ended, where the host tells."""
        for entry in reversed(self.module.history):
            return _finish_reason(entry.get("response"))
        return None


class _Program:
    """The user's program, which may know only the sync way."""

    def __init__(self, program: dspy.Module) -> None:
        self._program = program

    def __call__(self, **inputs: Any) -> Any:
        return self._program(**inputs)

    async def acall(self, **inputs: Any) -> Any:
        if is_async(self._program):
            return await self._program.acall(**inputs)
        return await in_thread(self._program, **inputs)


def _drawn(lm: Any, sampling: Sampling) -> Any:
    """Return the LM with a sample's settings, for a program that calls it itself; its history stays one."""
    if not isinstance(lm, dspy.BaseLM):
        return None
    drawn = lm.copy(**sampling.of(lm, {}))
    drawn.history = lm.history
    return drawn


def _unparsed(error: dspy.AdapterParseError) -> Failure:
    said = str(getattr(error, "lm_response", "") or "")
    if not said.strip() or said == "None":
        return Failure("empty", "the response is empty", error)
    return Failure("unparsable", f"its fields could not be read from the {len(said)} characters that came", error)


def usage_of(tracker: Any) -> Usage:
    """Return what DSPy's tracker saw: a request for each answer that came from no cache."""
    total = Usage()
    for entry in (e for of_lm in tracker.usage_data.values() for e in of_lm):
        details = entry.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        total += Usage(0, 1, entry.get("prompt_tokens") or 0, entry.get("completion_tokens") or 0, cached or 0)
    return total


def _finish_reason(response: Any) -> str | None:
    reason = getattr(response, "finish_reason", None)
    choices = getattr(response, "choices", None)
    if reason is None and choices:
        reason = getattr(choices[-1], "finish_reason", None)
    return None if reason is None else str(reason)
