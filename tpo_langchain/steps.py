"""What an answer of a chain takes, step by step: a request or a run, and the user's renderer for what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from langchain_core.runnables import Runnable, RunnableConfig

from tpo_core.pace import Pace
from tpo_core.records import repr_without_texts
from tpo_core.rewards.concurrency import aeach_sync, each
from tpo_langchain.failures import unparsable
from tpo_langchain.n_samples import Request, Samples
from tpo_langchain.tracing import Meter

__all__ = ["Asking", "Flow", "Gates", "Rendering", "Running", "aserved", "served"]

Gates = tuple[AbstractContextManager[Any], AbstractAsyncContextManager[Any]]
"""What a sync and an async call must pass: the bounds of a batch."""


@dataclass(frozen=True)
class Asking:
    """A request to a chain's model."""

    request: Request
    given: Any
    config: RunnableConfig | None
    """The child run's; None where nobody listens."""
    gates: Gates

    __repr__ = repr_without_texts()

    def done(self) -> Samples | Exception:
        """Return what comes of it, or the exception that does."""
        try:
            with self.gates[0]:
                if self.config is None:
                    return self.request.do(self.given)
                return self.request.invoke(self.given, self.config)
        except Exception as error:  # noqa: BLE001 - the flow that asked decides what it costs
            return error

    async def adone(self) -> Samples | Exception:
        """Return as ``done`` does, without blocking."""
        try:
            async with self.gates[1]:
                if self.config is None:
                    return await self.request.ado(self.given)
                return await self.request.ainvoke(self.given, self.config)
        except Exception as error:  # noqa: BLE001 - as in done
            return error


@dataclass(frozen=True)
class Running:
    """A run of a whole chain for one sample, where its model cannot be asked by itself."""

    chain: Runnable[Any, Any]
    given: Any
    config: RunnableConfig
    kwargs: Mapping[str, Any]
    meter: Meter
    """Sees what the chain's models answer."""
    gates: Gates

    __repr__ = repr_without_texts()

    def done(self) -> Samples | Exception:
        """Return what comes of it, or the exception that does."""
        try:
            with self.gates[0]:
                return self._seen(self.chain.invoke(self.given, self.config, **self.kwargs))
        except Exception as error:  # noqa: BLE001 - the flow that asked decides what it costs
            return self._failed(error)

    async def adone(self) -> Samples | Exception:
        """Return as ``done`` does, without blocking."""
        try:
            async with self.gates[1]:
                return self._seen(await self.chain.ainvoke(self.given, self.config, **self.kwargs))
        except Exception as error:  # noqa: BLE001 - as in done
            return self._failed(error)

    def _seen(self, value: Any) -> Samples:
        return Samples([(self.meter.last, value)], self.meter.usage, self.meter.seen)

    def _failed(self, error: Exception) -> Samples | Exception:
        """Return an answer that could not be parsed as one, with what it cost."""
        return error if unparsable(error) is None else self._seen(error)


@dataclass(frozen=True)
class Rendering:
    """The user's renderer, asked for the texts of some outputs."""

    render: Any
    values: Sequence[Any]
    pace: Pace

    __repr__ = repr_without_texts()

    def done(self) -> list[Any]:
        """Return each text, or the exception that came instead."""
        call = self.render.invoke if isinstance(self.render, Runnable) else self.render
        return each(call, self.values, len(self.values), self.pace)

    async def adone(self) -> list[Any]:
        """Return as ``done`` does, without blocking."""
        if not isinstance(self.render, Runnable):
            return await aeach_sync(self.render, self.values, len(self.values), self.pace)
        return await asyncio.gather(*[self.render.ainvoke(value) for value in self.values], return_exceptions=True)


T = TypeVar("T")

Flow: TypeAlias = "Generator[Asking | Running | Rendering, Any, T]"
"""Yields what is to be done, is sent what came of it, returns the answer: one text for sync and async."""


def served(flow: Flow[T]) -> T:
    """Do what a flow asks for, here."""
    step = next(flow)
    while True:
        try:
            step = flow.send(step.done())
        except StopIteration as end:
            return cast("T", end.value)


async def aserved(flow: Flow[T]) -> T:
    """Do what a flow asks for, without blocking."""
    step = next(flow)
    while True:
        try:
            step = flow.send(await step.adone())
        except StopIteration as end:
            return cast("T", end.value)
