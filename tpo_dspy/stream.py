"""Progress for whoever listens: the user's function, and a ``dspy.streamify`` stream as one message a round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import dspy
from dspy.streaming import StatusMessage

from tpo_core.drivers.serving import Observer
from tpo_core.loop.effects import Progress

__all__ = ["message", "observer"]


def observer(note: Callable[[Progress], None] | None, told: Observer | None, *, sync: bool) -> Observer | None:
    """Return an observer that notes progress, sends a message per round to the stream there is, and tells the user.

    None where there is nobody to tell: each event is a call to be made.

    Args:
        note: Called first, always; None where nothing is to be noted.
        told: The user's own observer.
        sync: Whether the run is a sync one, in a thread of its own.
    """
    stream = dspy.settings.send_stream
    if note is None and told is None and stream is None:
        return None
    send = None if stream is None else (_sync_sender(stream) if sync else stream.send)

    def observe(progress: Progress) -> Any:
        if note is not None:
            note(progress)
        text = message(progress) if send is not None else None
        if sync:
            if text is not None and send is not None:
                send(StatusMessage(text))
            return None if told is None else told(progress)
        return _tell(send, text, told, progress)

    return observe


def message(progress: Progress) -> str | None:
    """Write what a round came to; None for what is no round's result."""
    best = "" if progress.best is None or progress.best.reward is None else f", best reward {progress.best.reward:.4g}"
    if progress.kind == "scored":
        good = sum(c.reward is not None for c in progress.candidates)
        return f"round {progress.step}: {good} of {len(progress.candidates)} samples became candidates{best}"
    return f"stopped: {progress.text}{best}" if progress.kind == "stopped" else None


async def _tell(send: Any, text: str | None, told: Observer | None, progress: Progress) -> None:
    if text is not None:
        await send(StatusMessage(text))
    answer = None if told is None else told(progress)
    if answer is not None:
        await answer


def _sync_sender(stream: Any) -> Callable[[StatusMessage], None]:
    """Return a way into the stream from any thread of a sync run."""
    try:
        loop = anyio.from_thread.run_sync(asyncio.get_running_loop)
    except RuntimeError:  # called in the event loop's own thread, which must not wait for itself
        return _try_now(stream)
    return lambda told: asyncio.run_coroutine_threadsafe(stream.send(told), loop).result()


def _try_now(stream: Any) -> Callable[[StatusMessage], None]:
    def send(told: StatusMessage) -> None:
        with suppress(anyio.WouldBlock):  # a reader that is behind misses a status message, never the answer
            stream.send_nowait(told)

    return send
