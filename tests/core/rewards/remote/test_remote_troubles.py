"""Reward servers that are overloaded, hang, dribble, flood or disappear: bounded in time, and no score is lost."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tpo_core.errors import RewardError
from tpo_core.rewards import RemoteRewardModel

JSON = "application/json"
TEXTS = [f"answer {i}" for i in range(32)]


def once_tested(answer, times=1):
    """Let the self-test pass, then answer some posts with this."""
    left = [answer] * times
    return lambda number, path, body: left.pop() if number > 1 and left else None


@pytest.mark.parametrize(
    ("status", "after", "least", "most"),
    [(429, "0", 0.0, 5.0), (503, -60, 0.0, 5.0), (429, 2, 0.5, 8.0), (503, "1", 1.0, 8.0)],
    ids=["no time", "a date that has passed", "a date", "seconds"],
)
def test_a_server_is_left_alone_for_as_long_as_it_asks(fakes, status, after, least, most):
    after = after if isinstance(after, str) else formatdate(time.time() + after, usegmt=True)
    fault = once_tested((status, JSON, b"{}", [("Retry-After", after)]))
    with fakes.serving(fakes.Tei(), fault) as (url, posts):
        reward = RemoteRewardModel(url, backoff=1000.0, retries=1)
        reward.selftest()
        start = time.monotonic()
        assert reward.score("Why?", ["a"]) == pytest.approx([fakes.raw("Why?a")])
        assert least <= time.monotonic() - start <= most and len(posts) == 3


def test_a_server_that_wants_to_be_left_alone_for_longer_than_the_timeout_does_not_stop_a_run(fakes):
    fault = once_tested((503, JSON, b"{}", [("Retry-After", "86400")]), times=3)
    with fakes.serving(fakes.Tei(), fault) as (url, posts):
        reward = RemoteRewardModel(url, timeout=0.3, retries=3, backoff=0.0)
        start = time.monotonic()
        assert reward.score("Why?", ["a"]) == pytest.approx([fakes.raw("Why?a")])
        assert 0.8 < time.monotonic() - start < 8 and len(posts) == 5


def test_a_wait_that_cannot_be_read_is_none(fakes):
    fault = once_tested((503, JSON, b"{}", [("Retry-After", "soon")]))
    with fakes.serving(fakes.Tei(), fault) as (url, _):
        assert RemoteRewardModel(url, backoff=0.0).score("Why?", ["a"]) == pytest.approx([fakes.raw("Why?a")])


def test_another_replica_is_asked_at_once_where_one_wants_to_be_left_alone(fakes):
    overloaded = threading.Event()

    def fault(number, path, body):
        return (503, JSON, b"{}", [("Retry-After", "3600")]) if overloaded.is_set() else None

    with fakes.serving(fakes.Tei(), fault) as (one, first), fakes.serving(fakes.Tei()) as (two, _):
        reward = RemoteRewardModel([one, two], batch_size=1, workers=4, backoff=1000.0)
        reward.selftest()
        overloaded.set()
        before, start = len(first), time.monotonic()
        assert reward.score("Why?", TEXTS) == pytest.approx([fakes.raw("Why?" + t) for t in TEXTS])
        assert time.monotonic() - start < 5 and len(first) - before <= 4


@pytest.mark.parametrize("from_the_start", [True, False], ids=["from the start", "later"])
def test_of_three_replicas_one_may_hang_and_one_fail_while_threads_and_tasks_score(fakes, from_the_start):
    trouble, release = threading.Event(), threading.Event()

    def hangs(number, path, body):
        if trouble.is_set():
            release.wait(30)

    def fails(number, path, body):
        return (500, "text/plain", b"Internal Server Error") if trouble.is_set() else None

    with (
        fakes.serving(fakes.Tei(), hangs) as (one, hung),
        fakes.serving(fakes.Tei(), fails) as (two, _),
        fakes.serving(fakes.Tei()) as (three, _),
    ):
        reward = RemoteRewardModel([one, two, three], timeout=1.0, batch_size=2, backoff=0.01)
        if not from_the_start:
            reward.selftest()
        trouble.set()
        found = {}

        def score(place):
            found[place] = reward.score(f"Why {place}?", ["a", "bc", "def"])

        async def at_once():
            return await asyncio.gather(*[reward.ascore(f"Why {i}?", ["a", "bc", "def"]) for i in range(32, 64)])

        threads = [threading.Thread(target=score, args=(i,)) for i in range(32)]
        start = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            found |= dict(enumerate(asyncio.run(at_once()), 32))
            for thread in threads:
                thread.join()
            took = time.monotonic() - start
        finally:
            release.set()
        for i in range(64):
            assert found[i] == pytest.approx([fakes.raw(f"Why {i}?{r}") for r in ("a", "bc", "def")])
        assert took < 12  # a few time-outs, not one per call; and a slow machine
        trouble.clear()
        before = len(hung)
        reward.close()  # forgets who failed
        assert reward.score("Why?", TEXTS) == pytest.approx([fakes.raw("Why?" + t) for t in TEXTS])
        assert len(hung) > before  # the one that hung works again


def test_a_server_that_hangs_does_not_cost_a_timeout_for_every_request(fakes):
    tested, release = threading.Event(), threading.Event()

    def hangs(number, path, body):
        if tested.is_set():
            release.wait(30)

    with fakes.serving(fakes.Tei(), hangs) as (url, _):
        reward = RemoteRewardModel(url, timeout=0.3, retries=1, backoff=0.0, batch_size=1, workers=2)
        reward.selftest()
        tested.set()
        start = time.monotonic()
        with pytest.raises(RewardError, match=url):
            reward.score("Why?", [f"answer {i}" for i in range(200)])  # would be 60 s
        assert time.monotonic() - start < 10
        tested.clear()
        release.set()
        assert reward.score("Why?", TEXTS) == pytest.approx([fakes.raw("Why?" + t) for t in TEXTS])


@contextmanager
def answering(write):
    """Serve whatever ``write(handler)`` writes, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with suppress(OSError):  # the client gave up, as it should
                write(self)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_timeout_is_for_the_whole_of_an_answer(fakes):
    over = threading.Event()

    def dribble(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(b" ")

    with answering(dribble) as url:
        start = time.monotonic()
        try:
            with pytest.raises(RewardError, match="in time; see timeout="):
                RemoteRewardModel(url, timeout=0.4, retries=0).score("Why?", ["a"])
            assert time.monotonic() - start < 3
        finally:
            over.set()


def test_an_answer_without_end_is_not_read_to_the_end():
    def flood(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 2**20)

    with answering(flood) as url, pytest.raises(RewardError, match="more than 64 MiB"):
        RemoteRewardModel(url, server="tei", retries=0).score("Why?", ["a"])


def test_a_host_that_accepts_no_connection_is_an_error_in_time():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            start = time.monotonic()
            with pytest.raises(RewardError, match="in time"):
                RemoteRewardModel(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=0.4, retries=0).selftest()
            assert time.monotonic() - start < 3
        finally:
            for one in waiting:
                one.close()


def test_closing_while_others_score_costs_them_nothing(fakes):
    slow = lambda number, path, body: time.sleep(0.05)  # noqa: E731  as long as a small model takes
    with fakes.serving(fakes.Tei(), slow) as (url, _):
        reward = RemoteRewardModel(url, batch_size=1, workers=4)
        found = []
        threads = [threading.Thread(target=lambda: found.append(reward.score("Why?", TEXTS[:8]))) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(found) < 4:
            reward.close()
        for thread in threads:
            thread.join()
        assert found == [pytest.approx([fakes.raw("Why?" + t) for t in TEXTS[:8]])] * 4


async def test_a_caller_that_gave_up_leaves_nothing_to_wait_for(fakes):
    asked, over = threading.Event(), threading.Event()

    def hang(handler):
        asked.set()
        over.wait(30)

    with answering(hang) as url:
        reward = RemoteRewardModel(url, timeout=30)
        calls = [asyncio.ensure_future(reward.ascore("Why?", [text])) for text in TEXTS[:3]]
        assert await asyncio.to_thread(asked.wait, 10)
        for call in calls:
            call.cancel()
        start = time.monotonic()
        await asyncio.to_thread(reward.close)
        over.set()
        assert time.monotonic() - start < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_scores_with_connections_of_its_own(fakes):
    program = """
import os, sys
from tpo_core.rewards import RemoteRewardModel
reward = RemoteRewardModel(sys.argv[1])
before = reward.score("Why?", ["a", "bc"])
child = os.fork()
if child == 0:
    os._exit(0 if reward.score("Why?", ["a", "bc"]) == before else 1)
assert os.waitpid(child, 0)[1] == 0
assert reward.score("Why?", ["a", "bc"]) == before
"""
    with fakes.serving(fakes.Tei()) as (url, _):
        done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
