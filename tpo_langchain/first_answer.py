"""A policy whose first sample is already there: an answer that was needed anyway, to see whether it calls a tool."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from contextlib import suppress

from langchain_core.messages import AIMessage

from tpo_core.loop.effects import Generate, Task
from tpo_core.models.policy import Policy
from tpo_core.values import Completion, Prompt
from tpo_langchain.convert import text_of
from tpo_langchain.tracing import finish_reason, usage_of

__all__ = ["AfterFirst", "is_final"]


def is_final(message: object) -> bool:
    """Return whether a message answers in words and can be refined, rather than calling a tool."""
    if not isinstance(message, AIMessage) or message.tool_calls or message.invalid_tool_calls:
        return False
    return bool(message.text.strip())


class AfterFirst:
    """Hands out one answer as the first sample; asks the policy behind it for everything else.

    Where the rest fails, the answer is kept for the next request, so that the driver sees what failed.
    """

    def __init__(self, policy: Policy, first: AIMessage, context: Prompt | None = None) -> None:
        """Wrap a policy for the length of one run; ``context`` is what the answer was given to, see ``Candidate``."""
        self._policy = policy
        self.takes_n: MutableMapping[Task, bool] = policy.takes_n
        self.fatal = policy.fatal
        self._first = [Completion(text_of(first), first, finish_reason(first), usage_of(first), context=context)]

    def generate(self, request: Generate, seeds: Sequence[int]) -> Sequence[Completion]:
        """Answer."""
        given, rest = self._split(request, seeds)
        try:
            return self._together(request, given, self._policy.generate(request, rest) if rest else ())
        except Exception:
            self._first += given
            raise

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> Sequence[Completion]:
        """Answer as ``generate`` does, without blocking."""
        given, rest = self._split(request, seeds)
        try:
            return self._together(request, given, await self._policy.agenerate(request, rest) if rest else ())
        except Exception:
            self._first += given
            raise

    def _split(self, request: Generate, seeds: Sequence[int]) -> tuple[list[Completion], Sequence[int]]:
        given: list[Completion] = []
        if request.task == "sample":
            with suppress(IndexError):  # several threads may ask, and one of them gets it
                given.append(self._first.pop())
        return given, seeds[len(given) :]

    def _together(self, request: Generate, given: list[Completion], rest: Sequence[Completion]) -> Sequence[Completion]:
        if given and len(rest) == 1 < request.n - 1:
            self.takes_n[request.task] = False  # one for many; the driver sees two
        return [*given, *rest]
