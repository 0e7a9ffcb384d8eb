"""Run one loop, or a list of them together, in threads or in an event loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing, closing
from typing import Any, Literal, overload

from tpo_core.config import TPOConfig, configured
from tpo_core.drivers.driving import adrive, drive
from tpo_core.drivers.scheduler import Run
from tpo_core.drivers.serving import Observer
from tpo_core.drivers.stream import Stream, models
from tpo_core.errors import InvalidInputError
from tpo_core.models.resolving import Answering
from tpo_core.prompts.rendering import show_query
from tpo_core.threads import AT_ONCE
from tpo_core.trajectory import Trajectory
from tpo_core.values import Prompt

__all__ = ["arun", "arun_many", "run", "run_many"]


def run(
    query: Prompt,
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Any = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    **settings: Any,
) -> Trajectory:
    """Align one answer to a reward while it is being produced.

    Args:
        query: What is asked: text, or chat messages.
        policy: Who answers: a ``Policy``, a ``ChatModel``, a ``dspy.LM``, a LangChain chat model, or a model string:
            ``openai/...`` or another of litellm's.
        reward: What the answer is aligned to: a ``RewardModel`` or anything ``as_reward`` takes.
        config: Width, depth, mode and budgets; ``TPOConfig()`` by default.
        inputs: What the policy's own program takes; the query by default.
        gold: A held-out reward, reported in ``Trajectory.gold`` and never optimised.
        on_progress: Called with each ``Progress`` as it happens, in this thread unless a deadline is set. What it
            raises ends the run: catch inside what must not.
        max_concurrency: Most requests at once; 32 by default.
        **settings: Fields of ``TPOConfig``, in the place of the config's: ``width=3``.

    Returns:
        The trajectory; ``.best`` is the answer.

    Raises:
        InvalidInputError: An argument is wrong; raised before any model is called.
        GenerationError: Not one candidate could be produced.
        RewardError: The reward model failed. These two carry the trajectory so far, as does whatever else ends the run:
            what ``on_progress`` raised, the host's control flow, an interrupt.
    """
    trajectories: list[Trajectory] = run_many(
        [query],
        policy,
        reward,
        config,
        inputs=None if inputs is None else [inputs],
        gold=gold,
        on_progress=on_progress,
        max_concurrency=max_concurrency,
        **settings,
    )
    return trajectories[0]


async def arun(
    query: Prompt,
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Any = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    **settings: Any,
) -> Trajectory:
    """Align one answer without blocking the event loop; see ``run``. ``on_progress`` may be async."""
    trajectories: list[Trajectory] = await arun_many(
        [query],
        policy,
        reward,
        config,
        inputs=None if inputs is None else [inputs],
        gold=gold,
        on_progress=on_progress,
        max_concurrency=max_concurrency,
        **settings,
    )
    return trajectories[0]


@overload
def run_many(
    queries: Sequence[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: Literal[False] = False,
    **settings: Any,
) -> list[Trajectory]: ...
@overload
def run_many(
    queries: Sequence[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: bool,
    **settings: Any,
) -> list[Trajectory | Exception]: ...
def run_many(
    queries: Sequence[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: bool = False,
    **settings: Any,
) -> list[Any]:
    """Run one loop per query together, so that their requests overlap and their rewards share batches.

    Args:
        queries: One prompt per loop.
        policy: As in ``run``; likewise the arguments not named here.
        inputs: One per query.
        return_exceptions: Put a failed loop's exception in its place instead of raising the first one.

    Returns:
        One trajectory per query, same order.

    Raises:
        Exception: The first that ended a loop, as in ``run``. Its ``trajectories`` hold what each query has until then,
            same order: finished, or cut off with stop reason ``cancelled``; likewise those of an interrupt or
            cancellation.
    """
    many = _Many(
        queries,
        policy,
        reward,
        configured(config, settings),
        inputs,
        gold,
        on_progress,
        AT_ONCE if max_concurrency is None else max_concurrency,
    )
    with many, closing(drive(many.scheduler)) as ended:
        for run in ended:
            many.end(run, return_exceptions)
    return many.results


@overload
async def arun_many(
    queries: Sequence[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: Literal[False] = False,
    **settings: Any,
) -> list[Trajectory]: ...
@overload
async def arun_many(
    queries: Sequence[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: bool,
    **settings: Any,
) -> list[Trajectory | Exception]: ...
async def arun_many(
    queries: Sequence[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    return_exceptions: bool = False,
    **settings: Any,
) -> list[Any]:
    """Run one loop per query together without blocking the event loop; see ``run_many``."""
    many = _Many(queries, policy, reward, configured(config, settings), inputs, gold, on_progress, max_concurrency)
    with many:
        async with aclosing(adrive(many.scheduler)) as ended:
            async for run in ended:
                many.end(run, return_exceptions)
    return many.results


class _Many(Stream):
    """A stream of queries that are all there from the start, so that each has its place in what it returns or raises.

    Every argument is checked here, before a model is called.
    """

    def __init__(
        self,
        queries: Sequence[Prompt],
        policy: Answering,
        reward: Any,
        config: TPOConfig,
        inputs: Sequence[Any] | None,
        gold: Any,
        on_progress: Observer | None,
        limit: int | None,
    ) -> None:
        if isinstance(queries, str) or not isinstance(queries, Sequence):
            raise InvalidInputError(f"queries must be a list of prompts, not {type(queries).__name__}")
        if inputs is not None and len(inputs) != len(queries):
            raise InvalidInputError(f"inputs and queries differ in length: {len(inputs)} and {len(queries)}")
        given = [None] * len(queries) if inputs is None else inputs
        super().__init__(zip(queries, given, strict=True), models(policy, reward, gold, on_progress), config, limit)
        for query in queries:
            show_query(query)
        self.results: list[Any] = [None] * len(queries)
        self._queries = queries
        self._gained: dict[int, Trajectory] = {}

    def end(self, run: Run, return_exceptions: bool) -> tuple[int, Any]:
        """Enter a run that has ended; see ``Stream``."""
        self.results[run.place] = run.result
        self._gained[run.place] = run.gained
        return super().end(run, return_exceptions)

    def gained(self) -> tuple[Trajectory, ...]:
        """Return what each query has, those that have ended or not begun included."""
        gained = self._gained | self.cut_off()
        cancelled = ((place, Trajectory(query, stop_reason="cancelled")) for place, query in enumerate(self._queries))
        return tuple(gained.get(place, unstarted) for place, unstarted in cancelled)
