"""Streams of queries, in every driver: each query comes out once, and no more are in memory than a window."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core import (
    GenerationError,
    InvalidInputError,
    TPOConfig,
    Trajectory,
    arun_stream,
    run_many,
    run_stream,
)
from tpo_core.testing import RubricReward, ScriptedPolicy, ScriptedReward, SimulatedPolicy

BON = TPOConfig(mode="bon", width=1)
LENGTHS = ScriptedReward({"a": 1.0, "a sample": 2.0})
Ended = list[tuple[int, Any]]


def in_threads(queries: Iterable[Any], *args: Any, **kwargs: Any) -> Ended:
    return list(run_stream(queries, *args, **kwargs))


def in_a_loop(queries: Iterable[Any], *args: Any, **kwargs: Any) -> Ended:
    async def collect() -> Ended:
        return [each async for each in arun_stream(queries, *args, **kwargs)]

    return asyncio.run(collect())


def from_an_async_source(queries: Iterable[Any], *args: Any, **kwargs: Any) -> Ended:
    async def collect() -> Ended:
        return [each async for each in arun_stream(later(queries), *args, **kwargs)]

    return asyncio.run(collect())


async def later(queries: Iterable[Any]) -> AsyncIterator[Any]:
    for query in queries:
        await asyncio.sleep(0)
        yield query


drivers = pytest.mark.parametrize("stream", [in_threads, in_a_loop, from_an_async_source])
Driver = Callable[..., Ended]


def timeless(result: Any) -> Any:
    return dataclasses.replace(result, seconds={}) if isinstance(result, Trajectory) else result


def answering_by_query() -> ScriptedPolicy:
    return ScriptedPolicy(
        sample=lambda request, seed: f"{request.inputs} {seed % 3}", update=lambda r, seed: f"u{seed}"
    )


def reward(prompt: str, response: str) -> float:
    return float(len(prompt) * 7 + sum(map(ord, response)) % 11)


@drivers
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 12),
    concurrency=st.integers(1, 5),
    window=st.none() | st.integers(1, 6),
    depth=st.integers(0, 2),
)
def test_a_stream_brings_what_the_list_brings_and_each_query_once(stream, count, concurrency, window, depth):
    queries, config = [f"query {'x' * n}" for n in range(count)], TPOConfig(width=2, depth=depth)
    together = run_many(queries, answering_by_query(), reward, config)
    ended = stream(iter(queries), answering_by_query(), reward, config, max_concurrency=concurrency, window=window)
    assert sorted(place for place, _ in ended) == list(range(count))
    assert [timeless(t) for _, t in sorted(ended, key=lambda pair: pair[0])] == [timeless(t) for t in together]


@drivers
@settings(max_examples=25, deadline=None)
@given(bad=st.sets(st.integers(0, 7)), failing=st.sets(st.integers(0, 7)), window=st.integers(1, 9))
def test_what_fails_costs_its_own_query_alone(stream, bad, failing, window):
    def answer(request: Any, seed: int) -> Any:
        return OSError("no") if int(request.inputs) in failing else "a"

    queries = ["" if n in bad else str(n) for n in range(8)]
    ended = stream(queries, ScriptedPolicy(sample=answer), LENGTHS, BON, window=window, return_exceptions=True)
    kinds = {place: type(result) for place, result in ended}
    wanted = {n: InvalidInputError if n in bad else GenerationError if n in failing else Trajectory for n in range(8)}
    assert kinds == wanted and len(ended) == 8
    assert all(str(result).startswith(f"query {place}: query is empty") for place, result in ended if place in bad)


@settings(max_examples=25, deadline=None)
@given(window=st.integers(1, 6), concurrency=st.integers(1, 6), taken=st.integers(1, 20))
def test_of_an_endless_source_no_more_is_read_than_the_window_has_room_for(window, concurrency, taken):
    read: list[str] = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            read.append(str(number))
            yield read[-1]

    def check(ended: int) -> None:
        assert len(read) <= ended + window

    with closing(
        run_stream(endless(), ScriptedPolicy(), LENGTHS, BON, max_concurrency=concurrency, window=window)
    ) as s:
        for ended, _ in enumerate(itertools.islice(s, taken)):
            check(ended + concurrency)  # those that ended at the same moment wait to be taken
    read.clear()

    async def loop() -> None:
        stream = arun_stream(endless(), ScriptedPolicy(), LENGTHS, BON, max_concurrency=concurrency, window=window)
        async with aclosing(stream) as ended:
            count = 0
            async for _ in ended:
                check(count + concurrency)
                if (count := count + 1) == taken:
                    break

    asyncio.run(loop())


async def test_a_source_that_is_slow_holds_up_nothing_that_is_on_its_way():
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[str]:
        yield "first"
        await go_on.wait()
        yield "second"

    ended = []
    async for place, trajectory in arun_stream(slow(), ScriptedPolicy(), RubricReward(), TPOConfig(width=2, depth=1)):
        ended.append((place, trajectory.query))
        go_on.set()  # only now: the first has ended while the source was waiting
    assert ended == [(0, "first"), (1, "second")]


async def test_a_stream_that_is_closed_asks_its_source_for_no_more():
    cancelled = []

    async def hanging() -> AsyncIterator[str]:
        yield "first"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with aclosing(arun_stream(hanging(), ScriptedPolicy(), LENGTHS, BON)) as stream:
        assert (await anext(stream))[0] == 0
    await asyncio.sleep(0)
    assert cancelled == [True]


@drivers
def test_an_error_carries_what_the_queries_on_their_way_have(stream: Driver):
    def answer(request: Any, seed: int) -> Any:
        if request.inputs == "bad":
            raise InvalidInputError("no")
        return "a"

    with pytest.raises(InvalidInputError, match="no") as caught:
        stream(["a", "bad", "later"], ScriptedPolicy(sample=answer), LENGTHS, BON, max_concurrency=1, window=1)
    assert caught.value.trajectory.query == "bad"


@drivers
def test_what_the_source_raises_ends_the_stream_as_it_is(stream: Driver):
    def broken() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError("in the source")

    with pytest.raises(ZeroDivisionError) as caught:
        stream(broken(), SimulatedPolicy(), RubricReward(), max_concurrency=8)
    assert all(t.query == "a" for t in caught.value.trajectories)  # type: ignore[attr-defined]


@drivers
@pytest.mark.parametrize(("given_inputs", "what"), [([1], "fewer"), ([1, 2, 3], "more")])
def test_inputs_that_are_too_few_or_too_many_are_an_error(stream: Driver, given_inputs: list[int], what: str):
    with pytest.raises(InvalidInputError, match=f"inputs has {what} than queries"):
        stream(["a", "b"], ScriptedPolicy(), LENGTHS, BON, inputs=given_inputs)


@pytest.mark.parametrize("call", [run_stream, arun_stream])
@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"queries": "why?"}, "queries must be an iterable of prompts, not str"),
        ({"queries": 3}, "queries must be an iterable of prompts, not int"),
        ({"max_concurrency": 0}, "max_concurrency must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"config": {"width": 3}}, "config must be a TPOConfig, not dict"),
        ({"policy": 3}, "policy must be"),
    ],
)
def test_a_wrong_argument_is_an_error_of_the_call_itself(call: Any, given: dict[str, Any], what: str):
    with pytest.raises(InvalidInputError, match=what):
        call(**{"queries": ["q"], "policy": ScriptedPolicy(), "reward": LENGTHS, **given})
