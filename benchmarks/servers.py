"""A server in a process of its own that takes a fixed time for each request and notes what it was asked.

It costs little processor time, so that what is measured beside it is the client. ``serve`` is its process; ``serving``
starts and ends one.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Serving", "serving"]

TAGS = ("<IMPROVED_VARIABLE>", "</IMPROVED_VARIABLE>")
"""Between which the optimizer of the authors' program looks for an answer."""

KEPT = 14_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@dataclass(frozen=True)
class Serving:
    """A server that runs."""

    url: str
    pipe: Connection

    def asked(self) -> list[dict[str, Any]]:
        """Return the requests since this was last called, the last ``KEPT`` of them, in the order of their arrival."""
        self.pipe.send("asked")
        requests: list[dict[str, Any]] = self.pipe.recv()
        return requests


@contextmanager
def serving(
    latency: float = 0.0, answer: tuple[int, int] = (8, 8), critique: tuple[int, int] = (8, 8)
) -> Iterator[Serving]:
    """Serve while the block runs.

    Args:
        latency: Seconds that each request takes, however many there are at once.
        answer: The fewest and the most words of a text of several.
        critique: Of a text that comes alone.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(there, latency, answer, critique), daemon=True
    )
    process.start()
    try:
        yield Serving(f"http://127.0.0.1:{here.recv()}/v1", here)
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, latency: float, answer: tuple[int, int], critique: tuple[int, int]) -> None:
    """Listen until the process is ended; sends the port, and what was asked when it is asked for that."""
    asked: deque[dict[str, Any]] = deque(maxlen=KEPT)
    numbers = count(1)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                length = next((int(line.split(b":")[1]) for line in head if line.startswith(b"content-length:")), 0)
                request = json.loads(await reader.readexactly(length)) if length else None
                if request is not None:
                    asked.append(request)
                    number = next(numbers)
                    if latency:
                        await asyncio.sleep(latency)
                    body = _completion(request, number, answer, critique)
                else:
                    body = {"object": "list", "data": [{"id": "instant", "object": "model"}]}
                data = json.dumps(body).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
                )
                writer.write(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def forever() -> None:
        def tell() -> None:
            pipe.recv()
            pipe.send(list(asked))
            asked.clear()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
        asyncio.get_running_loop().add_reader(pipe.fileno(), tell)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


def _completion(
    request: dict[str, Any], number: int, answer: tuple[int, int], critique: tuple[int, int]
) -> dict[str, Any]:
    n, rng = request.get("n") or 1, random.Random(number)
    texts = [_words(rng, rng.randint(*(critique if n == 1 else answer))) for _ in range(n)]
    if TAGS[0] in str(request["messages"]):
        texts = [text.join(TAGS) for text in texts]
    choices = [
        {"index": place, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for place, text in enumerate(texts)
    ]
    written = sum(text.count(" ") + 1 for text in texts)
    usage = {"prompt_tokens": 20, "completion_tokens": written, "total_tokens": 20 + written}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "instant", "choices": choices,
        "usage": usage,
    }  # fmt: skip


def _words(rng: random.Random, number: int) -> str:
    return " ".join(f"w{rng.randrange(31996)}" for _ in range(number))
