"""What holds of a reward server's answer, whatever its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tpo_core.rewards.remote.servers import UNREADABLE, Server

__all__ = ["check_answer"]


def check_answer(server: Server, answer: Any, info: Mapping[str, Any]) -> None:
    """Check that an answer is read as numbers, or refused by an error that a replica explains."""
    try:
        numbers = server.read(answer, info)
    except UNREADABLE:
        return
    assert all(type(n) is float for row in numbers for n in row) and all(numbers)
