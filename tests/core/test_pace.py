"""Sync functions found to be quick, by measuring: called in place then, and in threads before and otherwise."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core.pace import EACH, FAR, LIMIT, Pace
from tpo_core.rewards import FunctionReward
from tpo_core.rewards.concurrency import aeach_sync, each

MINE = contextvars.ContextVar("mine", default="none")


def double(number):
    return 2 * number


def spin(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def until_quick(pace, call, item, tries=1000):
    """Let a pace see a function; whether it was found quick on the way, on a machine that may be busy."""
    for _ in range(tries):
        if pace.quick:
            return True
        pace.timed(call, item)
    return pace.quick


def test_a_function_is_quick_after_some_quick_calls_in_a_row():
    pace = Pace()
    assert not pace.quick and pace.here(double, [1]) == []
    assert until_quick(pace, double, 1)
    assert pace.here(double, [1, 2, 3]) == [2, 4, 6]


def test_a_function_that_waits_is_never_quick_however_short_it_waits():
    pace, asked, answered = Pace(), threading.Semaphore(0), threading.Semaphore(0)

    def answer():
        while asked.acquire():
            answered.release()

    threading.Thread(target=answer, daemon=True).start()

    def ask(item):
        asked.release()
        answered.acquire()

    assert not until_quick(pace, ask, 1, tries=300)


def test_a_function_that_computes_for_long_is_not_quick():
    pace = Pace()
    assert not until_quick(pace, lambda item: spin(0.001), 1, tries=20)


def test_a_quick_function_that_turns_slow_holds_its_caller_once_and_is_trusted_less():
    pace, slow = Pace(each=0.001), []

    def moody(item):
        if slow:
            spin(FAR * 0.001)
        return item

    assert until_quick(pace, moody, 1)
    slow.append(True)
    assert pace.here(moody, [1, 2, 3]) == [1] and not pace.quick
    slow.clear()
    for _ in range(5):
        pace.timed(moody, 1)
    assert not pace.quick and until_quick(pace, moody, 1)


def test_a_single_call_that_was_not_quick_tells_nothing_but_the_next_is_made_in_a_thread():
    pace, slow = Pace(each=0.001), []

    def moody(item):
        if slow:
            spin(0.002)
        return item

    assert until_quick(pace, moody, 1)
    slow.append(True)
    assert pace.here(moody, [1, 2, 3]) == [1] and not pace.quick
    slow.clear()
    assert until_quick(pace, moody, 1, tries=4)
    slow.append(True)
    assert pace.here(moody, [1, 2, 3]) == [1]
    pace.timed(moody, 1)
    slow.clear()
    for _ in range(5):
        pace.timed(moody, 1)
    assert not pace.quick


DISTURBED = st.fixed_dictionaries(
    {
        "ran": st.floats(0, FAR * EACH, exclude_max=True),
        "waited": st.booleans(),
        "lost": st.just(True),
        "idle": st.just(True),
    }
)


@given(disturbed=st.lists(st.lists(DISTURBED, max_size=1), min_size=6, max_size=6))
def test_a_busy_machine_does_not_keep_a_function_from_being_found_quick(disturbed):
    pace = Pace()
    for calls in disturbed[:5]:
        for call in calls:
            pace._judge(**call)
        pace._judge(0.00001, waited=False, lost=False)
    assert pace.quick
    for call in disturbed[5]:
        pace._judge(**call)
    pace._judge(0.00001, waited=False, lost=False)
    assert pace.quick


@given(losses=st.lists(st.booleans(), max_size=30))
def test_a_function_that_always_waits_is_never_quick_whatever_the_machine_does(losses):
    pace = Pace()
    for lost in losses:
        pace._judge(0.00001, waited=True, lost=lost, idle=True)
        assert not pace.quick


def test_calls_in_place_end_at_the_limit():
    pace = Pace(each=1.0)
    assert until_quick(pace, double, 1)
    found = pace.here(lambda item: spin(LIMIT / 2) or item, list(range(10)))
    assert 1 <= len(found) < 10


def test_exceptions_stand_in_their_places_and_contexts_are_copies():
    pace = Pace(each=1.0)
    assert until_quick(pace, double, 1)

    def odd(item):
        before = MINE.get()
        MINE.set(f"item {item}")
        if item == 2:
            raise ValueError("not this one")
        return before

    token = MINE.set("the caller's")
    found = pace.here(odd, [1, 2, 3])
    assert found[0] == found[2] == MINE.get() == "the caller's" and isinstance(found[1], ValueError)
    MINE.reset(token)


async def test_a_function_with_an_event_loop_of_its_own_keeps_its_thread():
    pace, threads = Pace(each=1.0), []

    def looped(item):
        work = asyncio.sleep(0, item)
        try:
            found = asyncio.run(work)
        except RuntimeError:
            work.close()
            raise
        threads.append(threading.current_thread())
        return found

    pace._row = 100  # as if it had been found quick
    for _ in range(3):
        assert await aeach_sync(looped, [1, 2], 2, pace) == [1, 2]
    assert threading.current_thread() not in threads and not pace.quick


async def test_a_function_that_waits_for_the_event_loop_of_its_caller_does_not_stand_still():
    loop, pace = asyncio.get_running_loop(), Pace()

    def ask(item):
        return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, item), loop).result()

    for _ in range(50):
        assert await aeach_sync(ask, [1, 2, 3], 3, pace) == [1, 2, 3]


def test_a_quick_function_takes_no_thread_in_sync_calls_either():
    pace = Pace(each=1.0)
    threads = []
    call = lambda item: threads.append(threading.current_thread()) or item  # noqa: E731
    for _ in range(200):
        threads.clear()
        assert each(call, [1, 2, 3], 3, pace) == [1, 2, 3]
        if set(threads) == {threading.current_thread()}:
            break
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize("way", ["score", "ascore"])
async def test_a_reward_of_microseconds_costs_no_thread(way):
    threads = []

    def length(prompt, response):
        threads.append(threading.current_thread())
        return len(response)

    reward = FunctionReward(length)
    for _ in range(200):
        threads.clear()
        texts = ["a", "bb", "ccc"]
        scores = await reward.ascore("q", texts) if way == "ascore" else reward.score("q", texts)
        assert scores == [1.0, 2.0, 3.0]
        if set(threads) == {threading.current_thread()}:
            break
    assert set(threads) == {threading.current_thread()}
    assert pickle.loads(pickle.dumps(Pace())).quick is False  # noqa: S301


async def test_a_reward_that_waits_never_holds_the_event_loop():
    threads, together = [], threading.Barrier(3, timeout=10)

    def waiting(prompt, response):
        threads.append(threading.current_thread())
        together.wait()
        return len(response)

    reward = FunctionReward(waiting)
    for _ in range(20):
        assert await reward.ascore("q", ["a", "bb", "ccc"]) == [1.0, 2.0, 3.0]
    assert threading.current_thread() not in threads


def test_a_function_is_in_doubt_after_one_odd_call_and_slow_after_two():
    pace = Pace()
    assert until_quick(pace, double, 1) and not pace.in_doubt
    pace._judge(2 * EACH, waited=False, lost=False)  # as a collection of garbage would have it
    assert pace.in_doubt and not pace.quick
    assert each(double, [1, 2, 3, 4, 5], 5, pace) == [2, 4, 6, 8, 10]
    pace._judge(2 * EACH, waited=False, lost=False)
    pace._judge(2 * EACH, waited=False, lost=False)
    assert not pace.in_doubt and not pace.quick
