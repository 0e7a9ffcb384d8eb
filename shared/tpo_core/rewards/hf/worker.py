"""One thread that owns a model, and a queue in front of it.

Whoever asks (threads, event loops, batch drivers) gets a future. Requests that wait while the model is busy are taken
together, so the busier it is, the larger its batches; no request ever waits for others to come.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from tpo_core.errors import ModelError
from tpo_core.values import Pair, Reward

__all__ = ["Scores", "Worker"]


class Scores(Protocol):
    """What the thread owns."""

    def score(self, pairs: Sequence[Pair]) -> list[Reward | Exception]:
        """Return a reward per pair, or why that one has none."""


_Request = tuple[list[Pair], "Future[list[Reward | Exception]]"]


class Worker:
    """Runs one model in one thread, from the first request until it is closed or forgotten.

    Args:
        load: Makes the model; called in the thread, again after ``close``, with a function that tells whether the
            answers are wanted no more.
        name: The thread's name.
    """

    def __init__(self, load: Callable[[Callable[[], bool]], Scores], name: str) -> None:
        self._load = load
        self._name = name
        self._lock = threading.Lock()
        self._process: int | None = None
        self._stop: weakref.finalize[..., Worker] | None = None
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()

    def submit(self, pairs: Sequence[Pair]) -> Future[list[Reward | Exception]]:
        """Ask for rewards; the thread is started when there is none.

        Raises:
            ModelError: This process was forked from the one whose thread holds the model; threads do not follow.
        """
        if self._process not in (None, os.getpid()):
            raise ModelError(
                f"{self._name}: this process was forked after the model was loaded, and has no thread for it. Make the "
                "model in each process, start processes by spawn, or close() it before the fork"
            )
        future: Future[list[Reward | Exception]] = Future()
        with self._lock:
            if self._stop is None or not self._stop.alive:
                self._start()
            self._queue.put((list(pairs), future))
        return future

    def close(self) -> None:
        """Let the thread finish what it was asked for, then end it and drop the model."""
        if self._process not in (None, os.getpid()):
            return
        with self._lock:
            if self._stop is not None and (held := self._stop.detach()) is not None:
                _, _, (requests, thread, _), _ = held
                _end(requests, thread)
            self._process = None

    def _start(self) -> None:
        self._process = os.getpid()
        self._queue = queue.SimpleQueue()
        stop = threading.Event()
        loading = partial(self._load, stop.is_set)
        thread = threading.Thread(target=_run, args=(loading, self._queue), name=self._name, daemon=True)
        thread.start()
        # Runs when this object is forgotten and at exit, too: a thread inside a model must not outlive the interpreter.
        self._stop = weakref.finalize(self, _abandon, self._queue, thread, stop)


def _end(requests: queue.SimpleQueue[_Request | None], thread: threading.Thread) -> None:
    requests.put(None)
    if thread is not threading.current_thread():
        thread.join()


def _abandon(requests: queue.SimpleQueue[_Request | None], thread: threading.Thread, stop: threading.Event) -> None:
    """End a thread whose answers nobody can wait for any more; only the forward pass it is in is finished."""
    stop.set()
    while True:
        try:
            request = requests.get_nowait()
        except queue.Empty:
            break
        if request is not None:
            request[1].cancel()
    _end(requests, thread)


def _run(load: Callable[[], Scores], requests: queue.SimpleQueue[_Request | None]) -> None:
    scores: Scores | None = None
    open_ = True
    while open_:
        waiting = [requests.get()]
        while not requests.empty():
            waiting.append(requests.get())
        open_ = None not in waiting
        batch = [r for r in waiting if r is not None and r[1].set_running_or_notify_cancel()]
        if not batch:
            continue
        try:
            scores = scores or load()
        except BaseException as error:  # noqa: BLE001 - whoever asked must hear of it, and the thread live on
            for _, future in batch:
                future.set_exception(_harmless(error))
            continue
        _serve(scores, batch)


def _serve(scores: Scores, batch: list[_Request]) -> None:
    """Answer requests together; when that fails, each alone, so that only the one at fault fails."""
    try:
        answers = scores.score([pair for pairs, _ in batch for pair in pairs])
    except BaseException as error:  # noqa: BLE001 - whoever asked must hear of it, and the thread live on
        if len(batch) == 1:
            batch[0][1].set_exception(_harmless(error))
            return
        for request in batch:
            _serve(scores, [request])
        return
    for pairs, future in batch:
        mine, answers = answers[: len(pairs)], answers[len(pairs) :]
        future.set_result(mine)


def _harmless(error: BaseException) -> Exception:
    """Return what may be raised where the answer is awaited: an exit of the model's code must not be the caller's."""
    return error if isinstance(error, Exception) else ModelError(f"the model's code raised {error!r}")
