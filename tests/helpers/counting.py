"""Counting the calls of what a refinement should call seldom: time depends on the machine, counts do not."""

from __future__ import annotations

import inspect
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import CodeType
from typing import Any

from tpo_core.threads import Threads

__all__ = ["SELDOM", "counting"]

SELDOM = {
    inspect.Signature.from_callable.__func__.__code__: "signatures",  # type: ignore[attr-defined]
    threading.Thread.start.__code__: "threads",
    ThreadPoolExecutor.submit.__code__: "handovers",
    Threads.submit.__code__: "handovers",
}
"""What neither face should do often, by the name it is counted under."""


@contextmanager
def counting(counted: Mapping[CodeType, str]) -> Iterator[Counter[str]]:
    """Count the calls of functions by the names given to their code, in this thread; as ``calls`` those of any."""
    calls: Counter[str] = Counter()

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            calls["calls"] += 1
            if name := counted.get(frame.f_code):
                calls[name] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
