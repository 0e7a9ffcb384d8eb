"""How one run looks to DSPy's callbacks: TPO -> Round -> Sample, Loss, Gradient, Update, Score -> the modules inside.

Each request is a small module, so that callbacks, histories and tracing tools see it by name. A round is no function
call, so its start and end are reported by hand, and what belongs to it runs in what callbacks made of the context then.
"""

from __future__ import annotations

import contextvars
import inspect
import logging
import threading
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID

from tpo_core.drivers.mlflow_span import note_rewards
from tpo_core.loop.effects import Progress
from tpo_core.rewards import RewardModel
from tpo_core.values import Pair, Reward

__all__ = ["Gradient", "Loss", "Request", "Round", "Rounds", "Sample", "Score", "ScoreInRound", "Update", "named"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Request(dspy.Module):
    """One request of the loop, around what answers it; its ``history`` holds the model calls it took."""

    def __init__(self, call: Callable[..., Any], acall: Callable[..., Any]) -> None:
        """Take the two ways to answer."""
        super().__init__()
        self._call, self._acall = call, acall

    def forward(self, **inputs: Any) -> Any:
        """Answer."""
        return self._call(**inputs)

    async def aforward(self, **inputs: Any) -> Any:
        """Answer without blocking."""
        return await self._acall(**inputs)


class Sample(Request):
    """One run of the user's program."""


class Loss(Request):
    """The textual loss: why the chosen response beats the rejected one."""


class Gradient(Request):
    """The textual gradient: what the next version should do."""


class Update(Request):
    """One rewriting of the chosen response."""


class Score(Request):
    """The reward model at work."""


class Round(dspy.Module):
    """One round of the loop; round 0 is the first samples."""


_KINDS = {"sample": Sample, "loss": Loss, "gradient": Gradient, "update": Update}


def named(task: str) -> type[Request]:
    """Return the module class of a task."""
    return _KINDS[task]


class Rounds:
    """Tells callbacks where rounds start and end, and runs what belongs to a round inside it."""

    def __init__(self) -> None:
        """Start before the first round."""
        self._callbacks: list[Any] = list(dspy.settings.get("callbacks") or [])
        self._lock = threading.Lock()
        self._step: int | None = None
        self._context: contextvars.Context | None = None
        self._entered: list[tuple[contextvars.ContextVar[Any], Any]] = []
        self._call_id = ""
        self._seen: Progress | None = None

    @property
    def heard(self) -> bool:
        """Return whether any callback hears of rounds."""
        return bool(self._callbacks)

    def note(self, progress: Progress) -> None:
        """Remember what a round came to."""
        if progress.kind == "scored":
            self._seen = progress

    def run(self, step: int | None, call: Callable[[], T]) -> T:
        """Call inside a round; None for the one under way."""
        context = self._inside(step)
        return call() if context is None else context.run(call)

    async def arun(self, step: int | None, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await inside a round; None for the one under way."""
        import asyncio

        context = self._inside(step)
        return await call() if context is None else await context.run(lambda: asyncio.ensure_future(call()))

    def close(self) -> None:
        """End the round under way."""
        with self._lock:
            self._end()

    def _inside(self, step: int | None) -> contextvars.Context | None:
        if not self._callbacks:
            return None
        with self._lock:
            if step is not None and step != self._step:
                self._end()
                self._step, self._call_id = step, uuid.uuid4().hex
                before, self._context = contextvars.copy_context(), contextvars.copy_context()
                self._context.run(self._start, step)
                self._entered = [(v, value) for v, value in self._context.items() if before.get(v, self) is not value]
            if self._context is None:
                return None
            context = contextvars.copy_context()  # of the request, which may be traced: a span is the current one
            for variable, value in self._entered:
                context.run(variable.set, value)
            return context

    def _start(self, step: int) -> None:
        self._tell("on_module_start", instance=Round(), inputs={"step": step})
        ACTIVE_CALL_ID.set(self._call_id)

    def _end(self) -> None:
        if self._context is not None:
            self._context.run(self._tell, "on_module_end", outputs=self._came_to(), exception=None)
        self._context = self._seen = None

    def _came_to(self) -> dspy.Prediction:
        seen = self._seen
        if seen is None:
            return dspy.Prediction(step=self._step)
        best = None if seen.best is None else seen.best.reward
        return dspy.Prediction(step=self._step, rewards=[c.reward for c in seen.candidates], best=best)

    def _tell(self, handler: str, **what: Any) -> None:
        for callback in self._callbacks:
            try:
                getattr(callback, handler)(call_id=self._call_id, **what)
            except Exception as error:  # noqa: BLE001 - as DSPy does: an observer's fault must not cost the run
                logger.warning("callback %r failed in %s: %s", callback, handler, error)


class ScoreInRound(RewardModel):
    """A reward model whose scorings are part of the round under way, and of no trace or stream."""

    def __init__(self, reward: RewardModel, rounds: Rounds) -> None:
        """Stand for ``reward``."""
        self.name, self.merges = reward.name, reward.merges  # type: ignore[misc]
        self._reward, self._rounds = reward, rounds

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score with the reward model behind this."""
        return self._reward.score_pairs(pairs)

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score with the reward model behind this."""

        def score() -> list[Reward]:
            with dspy.context(trace=[], send_stream=None):
                return Score(self._scored, self._ascored)(pairs=list(pairs))  # type: ignore[no-any-return]

        return self._rounds.run(None, score)

    async def ascore_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score with the reward model behind this, without blocking."""

        async def score() -> list[Reward]:
            with dspy.context(trace=[], send_stream=None):
                return await Score(self._scored, self._ascored).acall(pairs=list(pairs))  # type: ignore[no-any-return]

        return await self._rounds.arun(None, score)

    def check(self) -> None:
        """Check the reward model behind this."""
        self._reward.check()

    async def acheck(self) -> None:
        """Check the reward model behind this, without blocking."""
        await self._reward.acheck()

    @property
    def origin(self) -> RewardModel:
        """Return the reward model behind this."""
        return self._reward.origin

    def _scored(self, pairs: Sequence[Pair]) -> list[Reward]:
        return self._noted(self._reward.score_pairs(pairs))

    async def _ascored(self, pairs: Sequence[Pair]) -> list[Reward]:
        return self._noted(await self._reward.ascore_pairs(pairs))

    def _noted(self, rewards: list[Reward]) -> list[Reward]:
        note_rewards(self.name, rewards, "Score.forward")
        return rewards


def is_async(module: dspy.Module) -> bool:
    """Return whether a module can be awaited: its ``aforward`` must belong to its ``forward``, not to an older one."""
    owners = [next((c for c in type(module).__mro__ if name in vars(c)), None) for name in ("aforward", "forward")]
    if owners[0] is None or not inspect.iscoroutinefunction(vars(owners[0])["aforward"]):
        return False
    return owners[1] is None or issubclass(owners[0], owners[1])
