"""Feedback on its way to LangSmith: looked up and sent in a thread of its own, so that no answer waits for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.schemas import Run
from langsmith import Client

from tpo_core import Trajectory
from tpo_core.masking import hide
from tpo_core.threads import Mutex, after_fork
from tpo_langchain.tracing import summary, traced

__all__ = ["send_feedback", "wait_for_feedback"]

logger = logging.getLogger(__name__)

_SENT = ("reward", "initial_reward", "gain")

_lock = Mutex()
_sender: list[ThreadPoolExecutor] = []
_on_their_way: set[Future[None]] = set()
_projects: WeakKeyDictionary[Client, dict[str | None, UUID]] = WeakKeyDictionary()
"""LangSmith's ids of projects, by the client that knows them."""


def _forget() -> None:
    """Begin with nothing on its way: a forked process has no thread that would send it."""
    _sender.clear()
    _on_their_way.clear()


after_fork(_forget)


def send_feedback(trajectory: Trajectory, run_manager: Any, reward_name: str) -> None:
    """Send ``tpo_reward``, ``tpo_initial_reward`` and ``tpo_gain`` as feedback on a run, where LangSmith traces it.

    Numbers alone are sent, with the reward model's name as their source; critiques are not.

    Args:
        trajectory: What came of the run.
        run_manager: The run's callbacks.
        reward_name: Of the reward model.
    """
    told = summary(trajectory)
    scores = {f"tpo_{name}": float(told[name]) for name in _SENT if told[name] is not None}
    for tracer, run in traced(run_manager):
        if isinstance(tracer, LangChainTracer):
            _submit(tracer.client, run, scores, reward_name)


def wait_for_feedback(timeout: float | None = None) -> bool:
    """Wait until the feedback so far has been handed to LangSmith's client; a process waits for it at its end, too.

    Args:
        timeout: Most seconds to wait; None for as long as it takes.

    Returns:
        Whether all of it has.
    """
    with _lock:
        waiting = set(_on_their_way)
    return not wait(waiting, timeout).not_done


def _submit(client: Client, run: Run, scores: Mapping[str, float], reward_name: str) -> None:
    with _lock:
        if not _sender:
            _sender.append(ThreadPoolExecutor(1, thread_name_prefix="tpo-feedback"))
        future = _sender[0].submit(_send, client, run.id, run.trace_id, run.session_name, scores, reward_name)
        _on_their_way.add(future)
    future.add_done_callback(_arrived)


def _arrived(future: Future[None]) -> None:
    with _lock:
        _on_their_way.discard(future)


def _send(
    client: Client, run_id: UUID, trace_id: UUID, project: str | None, scores: Mapping[str, float], reward_name: str
) -> None:
    try:
        session = _session_id(client, project)
        for key, score in scores.items():
            client.create_feedback(
                run_id,
                key,
                score=score,
                trace_id=trace_id,
                session_id=session,
                feedback_source_type="model",
                source_info={"reward_model": reward_name},
            )
    except Exception as error:  # noqa: BLE001 - what is only shown must not cost the answer
        logger.warning("feedback could not be sent to LangSmith: %s", hide(str(error)))


def _session_id(client: Client, project: str | None) -> UUID:
    """Return LangSmith's id of a project, which exists once a run of it has arrived."""
    known = _projects.setdefault(client, {})
    if project not in known:
        client.flush(timeout=10)
        known[project] = client.read_project(project_name=project).id
    return known[project]
