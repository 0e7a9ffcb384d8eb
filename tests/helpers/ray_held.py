"""What Ray actors hold in tests, in a module that their processes can import."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from tpo_core import ModelError
from tpo_core.rewards import FunctionReward
from tpo_core.testing import SimulatedPolicy

__all__ = ["Held", "length_reward", "none", "simulated"]


class Busy(Exception):
    """A client's error that cannot be rebuilt from what it was made of."""

    def __init__(self, *, status: int, response: Any) -> None:
        super().__init__("too much to do")
        self.status_code, self.response = status, response


class Response:
    """With what a server said."""

    headers = {"retry-after": "7"}  # noqa: RUF012
    unpicklable = staticmethod(lambda: None)


class Held:
    """Answers, fails, hangs and dies."""

    name = "held"

    async def echo(self, text: str) -> tuple[str, int]:
        """Return it, and in which process."""
        return text, os.getpid()

    async def fail(self) -> None:
        """Raise as a chat model does."""
        raise ModelError("the model is busy") from Busy(status=429, response=Response())

    async def hang(self, told: str) -> None:
        """Never answer; write how it ended."""
        Path(told).write_text("begun")
        try:
            await asyncio.Event().wait()
        finally:
            Path(told).write_text("ended")

    async def die(self) -> None:
        """End the process."""
        os._exit(1)


def none() -> None:
    """Hold nothing: say why."""
    raise ModelError("there is no model here")


def simulated() -> SimulatedPolicy:
    """Return a policy that needs no model."""
    return SimulatedPolicy()


def length_reward() -> FunctionReward:
    """Return a reward."""
    return FunctionReward(lambda prompt, response: float(len(response)), name="length")
