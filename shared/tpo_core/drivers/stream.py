"""Queries from any iterable, run together in a bounded window; trajectories come out as they end.

The law: of a stream of any length, no more than a window's queries are in memory, and what a caller has not taken yet
holds up what starts next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator
from contextlib import aclosing, closing
from typing import Any, Literal, TypeAlias, overload
from weakref import WeakKeyDictionary

from tpo_core.config import TPOConfig, configured
from tpo_core.drivers.diagnosis import Diagnosis
from tpo_core.drivers.driving import Awaited, adrive, drive
from tpo_core.drivers.scheduler import Refused, Run, Scheduler
from tpo_core.drivers.serving import Models, Observer, serve
from tpo_core.errors import InvalidInputError, carry
from tpo_core.loop.ledger import Ledger
from tpo_core.models.resolving import Answering, as_policy
from tpo_core.rewards import RewardModel, as_reward
from tpo_core.threads import AT_ONCE
from tpo_core.trajectory import Trajectory
from tpo_core.values import Prompt

__all__ = ["Stream", "arun_stream", "models", "run_stream"]

logger = logging.getLogger(__name__)

PER_REQUEST = 4
"""Queries on their way for each request that may be out, unless the caller says otherwise: while some wait for a merged
scoring, others sample."""

_Ended: TypeAlias = "tuple[int, Trajectory]"
_EndedSomehow: TypeAlias = "tuple[int, Trajectory | Exception]"


@overload
def run_stream(
    queries: Iterable[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Iterable[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    window: int | None = None,
    return_exceptions: Literal[False] = False,
    **settings: Any,
) -> Generator[_Ended, None, None]: ...
@overload
def run_stream(
    queries: Iterable[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Iterable[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    window: int | None = None,
    return_exceptions: bool,
    **settings: Any,
) -> Generator[_EndedSomehow, None, None]: ...
def run_stream(
    queries: Iterable[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Iterable[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    window: int | None = None,
    return_exceptions: bool = False,
    **settings: Any,
) -> Generator[tuple[int, Any], None, None]:
    """Run one loop per query of any iterable, and yield each trajectory as it ends.

    Queries are read as there is room for them. Nothing new starts while the caller holds up the generator; calls that
    are out go on. Close the generator (or leave it to ``contextlib.closing``) to stop before the end.

    Args:
        queries: Prompts, read once; also without an end.
        policy: As in ``run``; likewise the arguments not named here.
        inputs: One per query, read along.
        window: Most queries on their way at once; four for each request that may be out by default.
        return_exceptions: Yield the exception of a query that failed instead of raising the first one.
        **settings: Fields of ``TPOConfig``, in the place of the config's: ``width=3``.

    Yields:
        A query's place, from 0, and its trajectory, in the order in which they end.

    Raises:
        InvalidInputError: An argument is wrong; raised by the call itself.
        Exception: The first that ended a loop, as in ``run``; its ``trajectories`` are those of the queries that were
            on their way, by place, as they stood. Whatever ``queries`` raises ends the stream likewise.
    """
    config, limit = configured(config, settings), AT_ONCE if max_concurrency is None else max_concurrency
    answering = models(policy, reward, gold, on_progress)
    stream = Stream(_steps(queries, inputs), answering, config, limit, _window(window, limit))
    return _driven(stream, return_exceptions)


@overload
def arun_stream(
    queries: Iterable[Prompt] | AsyncIterable[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Iterable[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    window: int | None = None,
    return_exceptions: Literal[False] = False,
    **settings: Any,
) -> AsyncGenerator[_Ended, None]: ...
@overload
def arun_stream(
    queries: Iterable[Prompt] | AsyncIterable[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Iterable[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    window: int | None = None,
    return_exceptions: bool,
    **settings: Any,
) -> AsyncGenerator[_EndedSomehow, None]: ...
def arun_stream(
    queries: Iterable[Prompt] | AsyncIterable[Prompt],
    policy: Answering,
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    inputs: Iterable[Any] | None = None,
    gold: Any = None,
    on_progress: Observer | None = None,
    max_concurrency: int | None = None,
    window: int | None = None,
    return_exceptions: bool = False,
    **settings: Any,
) -> AsyncGenerator[tuple[int, Any], None]:
    """Run one loop per query without blocking the event loop; see ``run_stream``.

    ``queries`` may be an async iterable; what takes long to come holds up nothing that is on its way.
    """
    config = configured(config, settings)
    answering, limit = models(policy, reward, gold, on_progress), max_concurrency
    room = _window(window, AT_ONCE if limit is None else limit)
    if not isinstance(queries, AsyncIterable):
        return _adriven(Stream(_steps(queries, inputs), answering, config, limit, room), None, return_exceptions)
    source = Awaited(aiter(queries))
    return _adriven(Stream(_along(source, inputs), answering, config, limit, room), source, return_exceptions)


_warned: WeakKeyDictionary[RewardModel, int] = WeakKeyDictionary()
"""How often a weakness was warned of, by the reward: whoever wraps a program has one for all of its calls."""


class Stream:
    """Queries on their way: their scheduler, and what is said and kept at the end.

    Args:
        queries: A query with its inputs each, or None where the next is not there yet.
        answering: Who answers.
        config: Of every loop.
        limit: Most requests at once; None for no limit.
        window: Most queries on their way at once; None for no limit.
    """

    def __init__(
        self,
        queries: Iterable[tuple[Prompt, Any] | None],
        answering: Models,
        config: TPOConfig,
        limit: int | None,
        window: int | None = None,
    ) -> None:
        """Check the arguments; nothing starts."""
        if limit is not None and limit < 1:
            raise InvalidInputError(f"max_concurrency must be at least 1, not {limit}")
        if window is not None and window < 1:
            raise InvalidInputError(f"window must be at least 1, not {window}")
        self.scheduler = Scheduler(_runs(queries, answering, config), limit, window)
        self._reward = answering.reward.origin
        self._diagnosis = Diagnosis()

    def end(self, run: Run, return_exceptions: bool) -> tuple[int, Any]:
        """Take a run that has ended: return its place and result, or raise its error unless errors are results."""
        self._diagnosis.add(run.result)
        if isinstance(run.result, Exception) and not return_exceptions:
            raise run.result
        return run.place, run.result

    def warn_of_lost_updates(self) -> None:
        """Warn, at the end, when the updates of most queries came to nothing; see ``Trajectory.diagnosis``.

        That is a warning the first time, and the tenth, hundredth, ... with their number; else a debug message.
        """
        if text := self._diagnosis.text:
            times = _warned[self._reward] = _warned.get(self._reward, 0) + 1
            again = "" if times == 1 else f" (said {times} times by now)"
            level = logging.WARNING if str(times).strip("0") == "1" else logging.DEBUG
            logger.log(level, "%s%s", text, again)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None:
            self.warn_of_lost_updates()
        elif isinstance(error, GeneratorExit):
            self.cut_off()
        else:
            carry(error, self.gained())

    def gained(self) -> tuple[Trajectory, ...]:
        """Stop what is on its way, and return what an error that ends the stream carries, by place."""
        return tuple(self.cut_off().values())

    def cut_off(self) -> dict[int, Trajectory]:
        """Stop what is on its way, and return what each query has by its place."""
        return {run.place: run.gained for run in sorted(self.scheduler.close(), key=lambda run: run.place)}


def models(policy: Any, reward: Any, gold: Any, on_progress: Observer | None) -> Models:
    """Take what a caller names; refuse what is none."""
    return Models(as_policy(policy), as_reward(reward), None if gold is None else as_reward(gold), on_progress)


def _runs(queries: Iterable[tuple[Prompt, Any] | None], answering: Models, config: TPOConfig) -> Iterator[Run | None]:
    place = 0
    for each in queries:
        if each is None:
            yield None
            continue
        query, own = each
        try:
            ledger = Ledger(query, own, config, time.monotonic)
        except InvalidInputError as error:
            yield Refused(InvalidInputError(f"query {place}: {error}"), place)
        else:
            yield Run(ledger, serve(ledger, answering, place), place)
        place += 1


def _window(window: int | None, limit: int) -> int:
    return PER_REQUEST * limit if window is None else window


def _steps(queries: Any, inputs: Iterable[Any] | None) -> Iterator[tuple[Any, Any] | None]:
    if isinstance(queries, (str, bytes)) or not isinstance(queries, Iterable):
        raise InvalidInputError(f"queries must be an iterable of prompts, not {type(queries).__name__}")
    return _along(((query,) for query in queries), inputs)


def _along(queries: Iterable[tuple[Any] | None], inputs: Iterable[Any] | None) -> Iterator[tuple[Any, Any] | None]:
    """Yield each query with its inputs, and None where the next query is not there yet."""
    given = None if inputs is None else iter(inputs)
    for query in queries:
        own = None
        if query is not None and given is not None and (own := next(given, _MISSING)) is _MISSING:
            raise InvalidInputError("inputs has fewer than queries: give one for each")
        yield None if query is None else (query[0], own)
    if given is not None and next(given, _MISSING) is not _MISSING:
        raise InvalidInputError("inputs has more than queries: give one for each")


_MISSING: Any = object()


def _driven(stream: Stream, return_exceptions: bool) -> Generator[tuple[int, Any], None, None]:
    with stream, closing(drive(stream.scheduler)) as ended:
        for run in ended:
            yield stream.end(run, return_exceptions)


async def _adriven(
    stream: Stream, source: Awaited[Any] | None, return_exceptions: bool
) -> AsyncGenerator[tuple[int, Any], None]:
    try:
        with stream:
            async with aclosing(adrive(stream.scheduler, source)) as ended:
                async for run in ended:
                    yield stream.end(run, return_exceptions)
    finally:
        if source is not None:
            source.close()
