"""An update goes through the program's own end: ``forward`` runs again, and its predictors are answered from a trace.

The law: no language model is asked. The predictor that wrote the answer answers with the update, those before it with
what they said for the answer that is rewritten, and retrievers of ``dspy.settings.rm`` with what they found then. So
what ``forward`` derives from the answer (counts, citations, checks, other names) is the update's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import dspy

from tpo_core.errors import InvalidInputError
from tpo_core.records import repr_without_texts
from tpo_core.threads import in_thread
from tpo_dspy.callbacks import is_async
from tpo_dspy.rewarded import Rewarded

__all__ = ["Ending", "Finish", "Found", "Made", "derives"]

Finish: TypeAlias = Callable[[dspy.Prediction, dspy.Example], dspy.Prediction]
"""Given a Prediction whose refined fields are rewritten and the call's inputs, returns the program's own Prediction."""

_SEARCHES = (Rewarded, dspy.BestOfN, dspy.Refine)
_GIVE = "give finish=, a function of (prediction, inputs) that returns the Prediction of an update"


@dataclass
class Found:
    """Stands for ``dspy.settings.rm``: keeps what a retriever found, or gives it again in the same order."""

    retriever: Any = None
    """Asked and kept; None gives what is kept."""
    kept: list[Any] = field(default_factory=list)
    given: int = 0

    __repr__ = repr_without_texts()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Retrieve, or repeat what was retrieved."""
        if self.retriever is not None:
            self.kept.append(self.retriever(*args, **kwargs))
            return self.kept[-1]
        if self.given >= len(self.kept):
            raise RuntimeError("an update took a way through forward on which it retrieves more than the answer did")
        self.given += 1
        return self.kept[self.given - 1]


@dataclass
class Made:
    """How the program made the answer that is rewritten."""

    steps: Sequence[tuple[Any, Mapping[str, Any], Any]]
    """The sample's trace: predictor, inputs and prediction of each call, in order."""
    value: dspy.Prediction
    """What the program returned."""
    found: Found
    """What its retrievers found."""
    stable: bool = False
    """Whether ``forward`` is known to leave an answer as it is that it has returned before."""

    __repr__ = repr_without_texts()


def derives(program: dspy.Module) -> bool:
    """Return whether ``forward`` may make more of an answer than its predictor did, and asks each predictor in turn.

    DSPy's own modules do not; programs around a search (``BestOfN``, another ``TPO``) draw again at every call. This
    walks through all that the program holds, the history of its calls included: ask once.
    """
    parts = [module for _, module in program.named_sub_modules(dspy.Module)]
    return not type(program).__module__.startswith("dspy.") and not any(isinstance(part, _SEARCHES) for part in parts)


def ending(made: Made, fields: Mapping[str, Any]) -> Generator[Replay, dspy.Prediction, dspy.Prediction]:
    """Yield the adapters under which ``forward`` is run again, and be sent what it returns; returns the last of these.

    Args:
        made: How the answer was made that is rewritten.
        fields: The rewritten fields, by their names in the program's Prediction.

    Raises:
        InvalidInputError: An update cannot go through ``forward``; the message says why and what to give.
        RuntimeError: This one took a way on which it is not the answer.
    """
    answer = made.steps[_answering(made, fields)][2]
    changed = [name for name in fields if name in answer and not _same(made.value[name], answer[name])]
    if changed and not made.stable:
        again = yield Replay(made, {name: made.value[name] for name in fields})
        if odd := [name for name in changed if not _same(again[name], made.value[name])]:
            raise InvalidInputError(
                f"program's forward adds to {odd[0]} what an update of it already has, and would add it twice: "
                f"add it in a field of its own, or {_GIVE}"
            )
    made.stable = True
    replay = Replay(made, fields)
    result = yield replay
    replay.check()
    return result


class Replay(dspy.ChatAdapter):
    """An adapter that answers predictors from a trace.

    Args:
        made: The trace, and what goes with it.
        fields: What the predictor that wrote the answer says instead, by the names in the program's Prediction.

    Raises:
        InvalidInputError: A field is not the answer of a predictor.
    """

    def __init__(self, made: Made, fields: Mapping[str, Any]) -> None:
        """Note the steps; nothing is answered yet."""
        super().__init__()
        self._made, self._at = made, _answering(made, fields)
        answer = made.steps[self._at][2]
        told = {_source(name, made, answer): value for name, value in fields.items()}
        self._update = {**dict(answer.items()), **told}
        self._left = list(range(len(made.steps)))
        self._answered = False
        self._lock = threading.Lock()  # a program may ask several predictors at once

    def settings(self) -> dict[str, Any]:
        """Return the settings under which the program is run again."""
        return {"adapter": self, "trace": [], "rm": Found(kept=self._made.found.kept), "send_stream": None}

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """Answer a predictor's call."""
        return self._answer(signature, inputs)

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """Answer a predictor's call."""
        return self._answer(signature, inputs)

    def check(self) -> None:
        """Make sure that the update was asked for.

        Raises:
            RuntimeError: ``forward`` took another way, and the update is in no field.
        """
        if not self._answered:
            raise RuntimeError("an update took a way through forward on which the answering predictor is not asked")

    def _answer(self, signature: Any, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        place = self._place(inputs)
        self._answered = self._answered or place == self._at
        said = self._update if place == self._at else dict(self._made.steps[place][2].items())
        return [{name: said.get(name) for name in signature.output_fields}]

    def _place(self, inputs: Mapping[str, Any]) -> int:
        """Return which step this is: the first left of this predictor, one with the same inputs before others."""
        predictor = (dspy.settings.caller_modules or [None])[-1]
        steps, name = self._made.steps, getattr(getattr(predictor, "signature", None), "__name__", "a predictor")
        with self._lock:
            mine = [place for place in self._left if steps[place][0] is predictor]
            if not mine:
                raise RuntimeError(f"an update took a way through forward on which it asks {name} once more")
            place = next((p for p in mine if _same(dict(steps[p][1]), dict(inputs))), mine[0])
            if place > self._at:
                raise InvalidInputError(
                    f"program asks {name} after the answer is written, and what it would say of an update is not "
                    f"known: {_GIVE}"
                )
            self._left.remove(place)
            return place


def _answering(made: Made, fields: Mapping[str, Any]) -> int:
    wrote = [i for i, step in enumerate(made.steps) if any(name in step[2] for name in fields)]
    if not made.steps:
        raise InvalidInputError(f"program asked no predictor that could be answered with an update: {_GIVE}")
    return wrote[-1] if wrote else len(made.steps) - 1


def _source(name: str, made: Made, answer: dspy.Prediction) -> str:
    """Return which field of the answering predictor became a field of the program's Prediction."""
    if name in answer:
        return name
    same = [own for own, value in answer.items() if _same(value, made.value[name])]
    if len(same) != 1:
        raise InvalidInputError(
            f"fields names {name}, which forward makes of what its last predictor wrote ({', '.join(answer.keys())}), "
            f"so an update of it cannot go through forward: refine one of those, or {_GIVE}"
        )
    return str(same[0])


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one is other or one == other)
    except Exception:  # noqa: BLE001 - values of the user's own types
        return False


class Ending:
    """An update's predictor, and after it the program's own end.

    Args:
        predictor: Rewrites.
        program: Whose ``forward`` runs again.
        inputs: The call's.
        parent: The Prediction that is rewritten.
        improved: The update's name of each refined field.
        made: How the parent was made; None where an update is the parent with its fields rewritten.
        finish: Used instead of ``forward``.
    """

    def __init__(
        self,
        predictor: dspy.Predict,
        program: dspy.Module,
        inputs: Mapping[str, Any],
        parent: dspy.Prediction,
        improved: Mapping[str, str],
        made: Made | None,
        finish: Callable[[dspy.Prediction], dspy.Prediction] | None,
    ) -> None:
        """Note the parts; nothing runs yet."""
        self._predictor, self._program, self._inputs, self._parent = predictor, program, inputs, parent
        self._improved, self._made, self._finish = improved, made, finish

    def __call__(self, **told: Any) -> dspy.Prediction:
        """Rewrite, and finish."""
        fields = self._rewritten(self._predictor(**told))
        if self._made is None or self._finish is not None:
            return self._whole(fields)
        passes = ending(self._made, fields)
        replay = next(passes)
        while True:
            with dspy.context(**replay.settings()):
                result = self._program(**self._inputs)
            try:
                replay = passes.send(result)
            except StopIteration as stop:
                return stop.value

    async def acall(self, **told: Any) -> dspy.Prediction:
        """Rewrite and finish without blocking."""
        fields = self._rewritten(await self._predictor.acall(**told))
        if self._made is None or self._finish is not None:
            return self._whole(fields)
        passes = ending(self._made, fields)
        replay = next(passes)
        while True:
            with dspy.context(**replay.settings()):
                if is_async(self._program):
                    result = await self._program.acall(**self._inputs)
                else:
                    result = await in_thread(self._program, **self._inputs)
            try:
                replay = passes.send(result)
            except StopIteration as stop:
                return stop.value

    def _rewritten(self, update: dspy.Prediction) -> dict[str, Any]:
        if missing := [name for name in self._improved.values() if name not in update]:
            raise InvalidInputError(f"update lacks the output field {', '.join(missing)}: give its signature one")
        return {name: update[new] for name, new in self._improved.items()}

    def _whole(self, fields: Mapping[str, Any]) -> dspy.Prediction:
        whole = self._parent.copy(**fields)
        return whole if self._finish is None else self._finish(whole)
