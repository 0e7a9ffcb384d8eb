"""A user's function or Runnable, called for a value: in this thread, or without blocking the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

__all__ = ["acalled", "called"]


def called(thing: Any, given: Any, config: RunnableConfig | None = None) -> Any:
    """Return what a function or a Runnable makes of a value."""
    return thing.invoke(given, config) if isinstance(thing, Runnable) else thing(given)


async def acalled(thing: Any, given: Any, config: RunnableConfig | None = None) -> Any:
    """Return what a function or a Runnable makes of a value; a function runs in a thread, since it may wait."""
    if isinstance(thing, Runnable):
        return await thing.ainvoke(given, config)
    return await asyncio.to_thread(thing, given)
