"""An OpenAI-compatible server on loopback that fails in the ways in which servers fail, by a seed.

As a process of its own it never fails, prints its address, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import threading
from collections import Counter
from concurrent.futures import Future
from typing import Any

from faults import HOSTILE

__all__ = ["KINDS", "FaultyServer"]

KINDS = (
    "429", "500", "503", "529", "400", "404", "html", "cut", "dropped", "stalled", "no json", "a list",
    "an empty object", "no choices", "other count", "none", "refusal", "length", "filtered", "tool call", "no usage",
    "hostile", "surrogate", "odd header",
)  # fmt: skip
"""Kinds of faults, each as likely as the other."""


_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
"""The name of a field in DSPy's prompts."""


class FaultyServer:
    """Serve ``POST /v1/chat/completions`` and ``GET /v1/models`` while the ``with`` block runs.

    Args:
        seed: Draws which request meets which fault.
        faulty: How many of the requests do, from 0 to 1.
        kinds: Which faults.
        refuses_n: Whether more than one choice is refused.
    """

    def __init__(self, seed: int, faulty: float, kinds: tuple[str, ...] = KINDS, *, refuses_n: bool = False) -> None:
        """Set what goes wrong; nothing listens yet."""
        self._random, self._faulty, self._kinds, self._refuses_n = random.Random(seed), faulty, kinds, refuses_n
        self.seen: Counter[str] = Counter()
        self._number = 0
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> FaultyServer:
        """Listen on a free port."""
        port: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(port,), daemon=True, name="faulty-server")
        self._thread.start()
        self.url = f"http://127.0.0.1:{port.result(30)}/v1"
        return self

    def __exit__(self, *raised: object) -> None:
        """Drop all connections, those that wait for an answer included."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    def _run(self, port: Future[int]) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(port))
        self._loop.close()

    async def _serve(self, port: Future[int]) -> None:
        self._end, self._tasks = asyncio.Event(), set[asyncio.Task[Any]]()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        port.set_result(server.sockets[0].getsockname()[1])
        await self._end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection stays."""
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
        if head.startswith(b"GET"):
            return _send(writer, 200, {"object": "list", "data": [{"id": "smol", "object": "model"}]})
        request = json.loads(body)
        n = request.get("n") or 1
        if n > 1 and self._refuses_n:
            return _send(writer, 400, {"error": {"message": "n must be 1", "param": "n"}})
        kind = self._random.choice(self._kinds) if self._random.random() < self._faulty else "none of these"
        self.seen[kind] += 1
        return await self._answer(kind, n, _FIELD.findall(str(request["messages"][-1])), writer)

    async def _answer(self, kind: str, n: int, fields: list[str], writer: asyncio.StreamWriter) -> bool:
        if kind.isdigit():
            return _send(writer, int(kind), {"error": {"message": "scheduled"}}, "Retry-After: 0.01\r\n")
        if kind == "dropped":
            return False
        if kind == "stalled":
            await self._end.wait()
            return False
        if kind == "odd header":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}")
            return False
        if kind == "cut":
            writer.write(
                b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"choices": ['
            )
            return False
        if kind == "html":
            return _send(writer, 200, "<html><script>alert(1)</script></html>", kind="text/html")
        if kind in ("no json", "a list", "an empty object"):
            return _send(writer, 200, {"no json": "{'choices'", "a list": "[1, 2]", "an empty object": "{}"}[kind])
        return _send(writer, 200, self._completion(kind, n, fields))

    def _completion(self, kind: str, n: int, fields: list[str]) -> Any:
        count = self._random.randrange(n + 3) if kind == "other count" else 0 if kind == "no choices" else n
        tokens = {"prompt_tokens": 20, "completion_tokens": 10 * count, "total_tokens": 20 + 10 * count}
        return {
            "id": "1", "object": "chat.completion", "created": 0, "model": "smol",
            "choices": [self._choice(kind, place, fields) for place in range(count)],
            **({} if kind == "no usage" else {"usage": tokens}),
        }  # fmt: skip

    def _choice(self, kind: str, place: int, fields: list[str]) -> Any:
        self._number += 1
        text = f"An answer of some words, number {self._number}."
        if fields:  # DSPy names those that it wants written last
            text = "".join(f"[[ ## {name} ## ]]\n{text}\n\n" for name in fields[-2:-1]) + "[[ ## completed ## ]]"
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if kind in ("none", "refusal"):
            message |= {"content": None, **({"refusal": "I cannot"} if kind == "refusal" else {})}
        if kind in ("hostile", "surrogate"):
            message["content"] = "half \ud800 of it" if kind == "surrogate" else self._random.choice(HOSTILE)
        if kind == "tool call":
            call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            message |= {"content": None, "tool_calls": [call]}
        reasons = {"length": "length", "filtered": "content_filter", "tool call": "tool_calls"}
        return {"index": place, "message": message, "finish_reason": reasons.get(kind, "stop")}


def _send(writer: asyncio.StreamWriter, status: int, body: Any, more: str = "", kind: str = "application/json") -> bool:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    return True


if __name__ == "__main__":
    with FaultyServer(0, 0.0) as sound:
        print(sound.url, flush=True)
        sys.stdin.read()
