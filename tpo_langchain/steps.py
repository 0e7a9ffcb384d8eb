"""What a request to a chain takes, step by step: a child run, and the user's renderer for what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from langchain_core.runnables import Runnable, RunnableConfig

from tpo_langchain.calling import acalled, called
from tpo_langchain.tracing import Meter

__all__ = ["Call", "Flow", "Gates", "Rendering", "aserved", "served"]

Gates = tuple[AbstractContextManager[Any], AbstractAsyncContextManager[Any]]
"""What a sync and an async call must pass: the bounds of a batch."""


@dataclass(frozen=True)
class Call:
    """One child run: what is invoked with what, and what it costs."""

    run: Runnable[Any, Any]
    given: Any
    config: RunnableConfig
    kwargs: dict[str, Any]
    meter: Meter
    gates: Gates

    def done(self) -> Any:
        """Return what comes of it, or the exception that does."""
        try:
            with self.gates[0]:
                return self.run.invoke(self.given, self.config, **self.kwargs)
        except Exception as error:  # noqa: BLE001 - the flow that asked decides what it costs
            return error

    async def adone(self) -> Any:
        """Return as ``done`` does, without blocking."""
        try:
            async with self.gates[1]:
                return await self.run.ainvoke(self.given, self.config, **self.kwargs)
        except Exception as error:  # noqa: BLE001 - as in done
            return error


@dataclass(frozen=True)
class Rendering:
    """The user's renderer, asked for the texts of some outputs."""

    render: Any
    values: Sequence[Any]

    def done(self) -> list[Any]:
        """Return each text, or the exception that came instead."""
        return [self._one(value) for value in self.values]

    async def adone(self) -> list[Any]:
        """Return as ``done`` does, without blocking."""
        if not isinstance(self.render, Runnable):
            return await asyncio.to_thread(self.done)
        return await asyncio.gather(*[acalled(self.render, value) for value in self.values], return_exceptions=True)

    def _one(self, value: Any) -> Any:
        try:
            return called(self.render, value)
        except Exception as error:  # noqa: BLE001 - it costs this sample
            return error


T = TypeVar("T")

Flow: TypeAlias = "Generator[Call | Rendering, Any, T]"
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
