"""One object in event loops that come and go: each loop and its connections are gone when it has ended."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from loopback import LoopbackServer
from tpo_core import ChatPolicy, OpenAIChat, TPOConfig, arun
from tpo_core.rewards import JudgeReward, RemoteRewardModel
from tpo_core.rewards.judge.limit import ConcurrencyLimit

LOOPS = 4


def left(ask: Callable[[], Awaitable[Any]], *, ended: bool = True) -> int:
    """Await in some event loops, one after the other; returns how many of them somebody still holds."""
    seen: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def noted() -> None:
        seen.append(weakref.ref(asyncio.get_running_loop()))
        await ask()

    for _ in range(LOOPS):
        if ended:
            asyncio.run(noted())
        else:  # closed as it is, with nothing wound up
            loop = asyncio.new_event_loop()
            loop.run_until_complete(noted())
            loop.close()
            del loop
    gc.collect()
    return sum(loop() is not None for loop in seen)


def test_a_chat_model_holds_no_loop_that_has_ended(loopback: type[LoopbackServer]) -> None:
    policy = ChatPolicy(OpenAIChat("smol", api_base=loopback().url))
    config = TPOConfig(mode="bon", width=2)
    assert left(lambda: arun("q", policy, lambda prompt, response: 1.0, config)) == 0


def test_connections_of_a_loop_that_was_only_closed_go_with_the_next_loop(loopback: type[LoopbackServer]) -> None:
    chat = OpenAIChat("smol", api_base=loopback().url)
    assert left(lambda: chat.achat([{"role": "user", "content": "q"}]), ended=False) <= 1


@pytest.mark.parametrize("remote", [False, True])
def test_a_reward_holds_no_loop_that_has_ended(loopback: type[LoopbackServer], remote: bool) -> None:
    judge = JudgeReward(OpenAIChat("smol", api_base=loopback(lambda request, number: "Grade: 7").url))
    server = loopback(lambda request, number: (404, {}))
    reward: Any = RemoteRewardModel(server.url, retries=0) if remote else judge

    async def ask() -> None:
        try:
            await reward.ascore("q", ["one", "two", "three"])
        except Exception:
            assert remote

    assert left(ask) <= remote  # those of the last loop stay until there is another


def test_a_limit_that_many_wait_for_holds_no_loop() -> None:
    limit = ConcurrencyLimit(1)

    async def ask() -> None:
        await asyncio.gather(*(limit.athrough(asyncio.sleep, 0) for _ in range(3)))

    assert left(ask) == 0


def test_the_interpreter_exits_with_a_run_pending_in_a_loop_that_nobody_closed() -> None:
    """Queues have waiters that cannot be shown any more by then: to miss one of them crashed Python 3.11."""
    program = """
import asyncio, socket
from tpo_core import OpenAIChat, TPOConfig, arun
silent = socket.create_server(("127.0.0.1", 0))
chat = OpenAIChat("smol", api_base=f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
loop = asyncio.new_event_loop()
run = loop.create_task(arun("why?", chat, lambda prompt, response: 1.0, TPOConfig(mode="bon", width=2)))
silent.setblocking(False)
loop.run_until_complete(loop.sock_accept(silent))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
