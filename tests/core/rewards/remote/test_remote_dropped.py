"""A reward server's client that nobody closes: its thread and its connections end with it, or with the process."""

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
import warnings

import pytest
from hanging import PATIENCE, hang

from tpo_core.rewards import RemoteRewardModel


class Gate:
    """Scores once it is let go."""

    def __init__(self):
        self.asked, self.release = threading.Event(), threading.Event()

    def get(self, path):
        return None

    def post(self, path, body):
        self.asked.set()
        hang(self.release)
        return {"scores": [float(len(text)) for text in body["texts"]]}


@pytest.fixture
def gate(fakes):
    """Serve a gate, open at first, and return it with its address."""
    gate = Gate()
    gate.release.set()
    with fakes.serving(gate) as (url, _):
        gate.url = f"{url}/score"
        yield gate
        gate.release.set()


def reward_of(gate):
    return RemoteRewardModel(
        gate.url, retries=0, timeout=2 * PATIENCE, parse=lambda answer: answer["scores"],
        request=lambda pairs: {"texts": [pair.response for pair in pairs]},
    )  # fmt: skip


def threads():
    return {thread for thread in threading.enumerate() if thread.name == "tpo-rewards"}


def check_ended(before):
    """Wait for the threads that have been started since, which end once nothing holds what they served."""
    end = time.monotonic() + PATIENCE
    for thread in threads() - before:
        while thread.is_alive():
            assert time.monotonic() < end
            gc.collect()
            thread.join(0.05)


def test_a_model_that_is_dropped_ends_its_thread_and_leaves_no_connection_open(gate):
    before, reward = threads(), reward_of(gate)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        assert reward.score("why?", ["a", "bc"]) == [1.0, 2.0]
        assert len(threads() - before) == 1
        del reward
        check_ended(before)
        gc.collect()
    assert not [each for each in found if "tpo" in str(each.message) or "socket" in str(each.message)]


def test_a_model_that_is_closed_and_used_again_ends_both_threads(gate):
    before, reward = threads(), reward_of(gate)
    assert reward.score("why?", ["a"]) == [1.0]
    reward.close()
    assert reward.score("why?", ["ab"]) == [2.0]
    del reward
    check_ended(before)


def test_a_call_under_way_is_answered_though_nobody_else_holds_its_model(gate):
    before, found = threads(), []
    gate.release.clear()
    asking = threading.Thread(target=lambda: found.append(reward_of(gate).score("why?", ["abc"])))
    asking.start()
    assert gate.asked.wait(PATIENCE)
    gc.collect()
    assert threads() - before and not found
    gate.release.set()
    asking.join(PATIENCE)
    assert found == [[3.0]]
    check_ended(before)


async def test_a_call_that_was_cancelled_holds_nothing_up(gate):
    before = threads()
    gate.release.clear()
    asking = asyncio.ensure_future(reward_of(gate).ascore("why?", ["abc"]))
    await asyncio.to_thread(gate.asked.wait, PATIENCE)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    del asking
    await asyncio.sleep(0)  # the loop's own handle lets go of the task
    check_ended(before)  # while the server still holds the request


def test_a_context_that_holds_the_model_does_not_keep_it(gate):
    """As DSPy's settings hold the program that is called, and it its reward."""
    before = threads()

    def ask():
        reward = reward_of(gate)
        contextvars.ContextVar("held").set(reward)
        assert reward.score("why?", ["a"]) == [1.0]

    contextvars.Context().run(ask)
    check_ended(before)


@pytest.mark.parametrize("how", ["kept", "dropped", "asking"])
def test_the_interpreter_exits_with_a_model_that_was_not_closed(gate, how):
    ends = {
        "kept": "",
        "dropped": "del reward",
        "asking": "threading.Thread(target=reward.score, args=('why?', ['abc']), daemon=True).start(); input()",
    }
    program = (
        "import sys, threading\n"
        "from tpo_core.rewards import RemoteRewardModel\n"
        "reward = RemoteRewardModel(sys.argv[1], parse=lambda answer: answer['scores'],\n"
        "    request=lambda pairs: {'texts': [pair.response for pair in pairs]})\n"
        f"print(reward.score('why?', ['ab']), flush=True)\n{ends[how]}\n"
    )
    command = [sys.executable, "-X", "faulthandler", "-c", program, gate.url]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout.readline() == "[2.0]\n"
    if how == "asking":
        gate.asked.clear()
        gate.release.clear()
        process.stdin.write("\n")
        assert gate.asked.wait(PATIENCE)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")
