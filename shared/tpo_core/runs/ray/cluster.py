"""The way into a Ray cluster, or one on this machine where there is none."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tpo_core.errors import InvalidInputError, ModelError

__all__ = ["connected", "imported"]

LEAST_STORE = 80 * 2**20
"""Bytes of shared memory of a Ray on this machine, the least that it takes: answers are a few kilobytes."""

STARTS = 3
"""How often Ray is started until it has failed: it gives its processes half a minute, too little on a busy machine."""


def imported() -> Any:
    """Return the ``ray`` module.

    Raises:
        InvalidInputError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else a cluster on this machine reports to its makers
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InvalidInputError(f'Ray is not installed: pip install "tpo[ray]" ({error})') from error
    return ray


@contextmanager
def connected(address: str | None = None, *, cpus: int | None = None) -> Iterator[Any]:
    """Be connected to Ray, and give its module; a process that is connected already stays so.

    Args:
        address: Of a cluster, as ``ray.init`` takes it; ``RAY_ADDRESS`` by default. Without either, Ray is started on
            this machine, without its dashboard, and ended with the block.
        cpus: How many processors the Ray on this machine counts; those that there are by default.

    Raises:
        InvalidInputError: Ray is not installed.
        ModelError: The cluster cannot be reached, or Ray does not start.
    """
    ray = imported()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": LEAST_STORE}
    with _own_sigterm():
        for left in reversed(range(1 if address else STARTS)):
            try:
                ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
                break
            except Exception as error:
                if not left:
                    where = f"the Ray cluster at {address} cannot be reached" if address else "Ray does not start here"
                    raise ModelError(f"{where}: {type(error).__name__}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what the process does at a SIGTERM: Ray's start puts something else in its place."""
    mine = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if mine else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
