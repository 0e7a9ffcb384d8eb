"""An exchange with a server ends when it is cancelled, and when its time is up."""

import asyncio
import random
from contextlib import asynccontextmanager, suppress

import pytest

from tpo_core.rewards.remote.exchange import Connections, TransientError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"


@asynccontextmanager
async def line(answers=True, timeout=60.0):
    """Open a line to a server in this event loop that answers each request at once, or never."""

    async def serve(reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                if answers:
                    writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    opened = Connections(f"http://127.0.0.1:{port}", headers={}, timeout=timeout)
    try:
        yield opened
    finally:
        await opened.close()
        server.close()


async def test_an_exchange_is_cancelled_at_any_moment():
    draw = random.Random(4)

    async def heard(opened) -> bool:
        answered = 0

        async def on_and_on() -> None:
            nonlocal answered
            while answered < 20:
                await opened.ask("GET", "/")
                answered += 1

        task = asyncio.create_task(on_and_on())
        for _ in range(draw.randrange(60)):
            await asyncio.sleep(0)
        assert not task.done(), "all was answered already"
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    async with line() as opened:
        assert [await heard(opened) for _ in range(150)].count(False) == 0


async def test_an_exchange_without_an_answer_ends_when_its_time_is_up():
    async with line(answers=False, timeout=0.2) as opened:
        with pytest.raises(TransientError, match="in time"):
            await opened.ask("GET", "/")
