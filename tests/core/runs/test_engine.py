"""A run's engine, played by hand: whether a query failed by itself, or by a model that is lost to all of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from tpo_core import TPOConfig
from tpo_core.errors import GenerationError, ModelError
from tpo_core.loop.effects import Generate, Task
from tpo_core.runs import Item, RunStore, Tally
from tpo_core.runs.engine import Ended, Engine
from tpo_core.testing import ScriptedReward
from tpo_core.values import Completion

Asked = tuple[str, "asyncio.Future[Completion]"]


class Played:
    """Is answered by the test, request by request."""

    fatal: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self.takes_n: MutableMapping[Task, bool] = {}
        self.asked: asyncio.Queue[Asked] = asyncio.Queue()

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        raise NotImplementedError

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((str(request.inputs), answer))
        return [await answer]

    async def next(self, prompt: str) -> asyncio.Future[Completion]:
        asked, answer = await self.asked.get()
        assert asked == prompt
        return answer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.open(tmp_path / "out") as opened:
        yield opened


def engine_of(store: RunStore, policy: Played) -> Engine:
    ticks = itertools.count()
    tally = Tally(store.counts, clock=lambda: float(next(ticks)))
    return Engine(store, lambda item: policy, ScriptedReward({}, 1.0), TPOConfig(mode="bon", width=1), tally, 2)


def gone() -> ModelError:
    """Return an error with nothing behind it, so that the query asks no more."""
    return ModelError("the server is gone")


def next_of(ended: AsyncIterator[Ended]) -> asyncio.Task[Ended]:
    async def waited() -> Ended:
        return await anext(ended)

    return asyncio.create_task(waited())


async def test_only_an_answer_to_a_request_sent_since_clears_a_query_that_a_lost_model_failed(store: RunStore) -> None:
    policy = Played()
    engine = engine_of(store, policy)
    items = [Item(name, name) for name in ("early", "lost", "later")]
    async with aclosing(engine.answer(items)) as ended:
        lost = next_of(ended)
        early = await policy.next("early")
        (await policy.next("lost")).set_exception(gone())
        assert (await lost).query.item.id == "lost"

        answered = next_of(ended)
        later = await policy.next("later")
        early.set_result(Completion("an answer to what was asked before the server was gone"))
        assert (await answered).query.item.id == "early"
        assert (engine.tally.done, engine.tally.failed) == (1, 0)

        answered = next_of(ended)
        later.set_result(Completion("an answer to what was asked since"))
        assert (await answered).query.item.id == "later"
        assert (engine.tally.done, engine.tally.failed) == (2, 1)
        assert [query async for query in ended] == []
    assert (store.counts.done, store.counts.failed) == (2, 1)


async def test_queries_that_a_lost_model_failed_stay_open_though_an_earlier_request_was_answered(
    store: RunStore,
) -> None:
    policy = Played()
    engine = engine_of(store, policy)
    items = [Item(name, name) for name in ("early", "a", "b", "c")]
    async with aclosing(engine.answer(items)) as ended:
        waited = next_of(ended)
        early = await policy.next("early")
        (await policy.next("a")).set_exception(gone())
        await waited

        waited = next_of(ended)
        b = await policy.next("b")
        early.set_result(Completion("an answer to what was asked before the server was gone"))
        await waited

        waited = next_of(ended)
        c = await policy.next("c")
        b.set_exception(gone())
        await waited

        waited = next_of(ended)
        c.set_exception(gone())
        with pytest.raises(GenerationError, match="the server is gone"):
            await waited
    assert (store.counts.done, store.counts.failed, store.counts.open) == (1, 0, 3)
