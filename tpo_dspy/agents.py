"""Agents: run once, answered many times.

Tools have side effects, so an agent is run in full by the first sample alone. The others repeat only its last step, the
one that writes the answer from what the agent did.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dspy

from tpo_core.errors import InvalidInputError
from tpo_core.threads import in_thread
from tpo_dspy.adapters import Sampling
from tpo_dspy.callbacks import is_async
from tpo_dspy.programs import predictors_of

__all__ = ["Agent", "final_step"]

_FINAL = ((dspy.CodeAct, "extractor"), (dspy.ReAct, "extract"))
_OWN_TOOLS = {"finish", "submit"}  # with which an agent ends its run; nothing happens outside it


def final_step(program: dspy.Module, rerun_tools: bool) -> dspy.Module | None:
    """Return the part of an agent that writes its answer; None for what is no agent, or may be run again in full.

    Raises:
        InvalidInputError: There is an agent inside the program, and only its last step cannot be repeated.
    """
    if rerun_tools:
        return None
    for kind, name in _FINAL:
        if isinstance(program, kind):
            return getattr(program, name)
    for path, module in program.named_sub_modules(dspy.Module):
        if _has_tools(module):
            where = path.removeprefix("self").lstrip(".") or "itself"
            raise InvalidInputError(
                f"program holds an agent ({type(module).__name__}, {where}), and each sample would call its tools "
                "again: wrap a dspy.ReAct or dspy.CodeAct directly in TPO, or allow it with rerun_tools=True"
            )
    return None


def _has_tools(module: dspy.Module) -> bool:
    tools = getattr(module, "tools", None) or ()
    names = tools if isinstance(tools, Mapping) else [getattr(tool, "name", "tool") for tool in tools]
    return bool(set(names) - _OWN_TOOLS)


class Agent:
    """One run's agent.

    Args:
        program: The agent.
        final: Its part that writes the answer.
    """

    def __init__(self, program: dspy.Module, final: dspy.Module) -> None:
        """Note the parts; nothing runs yet."""
        self._program, self._final = program, final
        self._ends = set(map(id, predictors_of(final)))
        self._gate, self._agate = threading.Lock(), asyncio.Lock()
        self._last: dict[str, Any] | None = None
        self._first: dspy.Prediction | None = None
        self._error: Exception | None = None
        self._steps: list[Any] = []

    @property
    def told(self) -> dict[str, Any]:
        """Return what the last step is given: the inputs, and what the agent did."""
        return self._last or {}

    def watched(self, sampling: Sampling) -> Sampling:
        """Have the last step's inputs noted."""
        return replace(sampling, rewrite=self._see)

    def __call__(self, **inputs: Any) -> dspy.Prediction:
        """Answer: the first time by the whole agent, later by its last step."""
        with self._gate:
            if self._goes_first():
                try:
                    return self._ran(self._program(**inputs))
                except Exception as error:  # noqa: BLE001 - the samples that wait for it share it
                    raise self._failed(error) from None
        return self._again(self._final(**self.told))

    async def acall(self, **inputs: Any) -> dspy.Prediction:
        """Answer without blocking; see ``__call__``."""
        async with self._agate:
            if self._goes_first():
                whole = self._program.acall if is_async(self._program) else _threaded(self._program)
                try:
                    return self._ran(await whole(**inputs))
                except Exception as error:  # noqa: BLE001 - the samples that wait for it share it
                    raise self._failed(error) from None
        return self._again(await self._final.acall(**self.told))

    def _see(self, signature: Any, inputs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        callers = dspy.settings.caller_modules or [None]
        if id(callers[-1]) in self._ends:
            self._last = dict(inputs)
        return signature, inputs

    def _goes_first(self) -> bool:
        if self._error is not None and self._last is None:  # its tools may have acted: do not send it out again
            raise self._error
        return self._first is None and self._error is None

    def _ran(self, prediction: dspy.Prediction) -> dspy.Prediction:
        self._first = prediction
        self._steps = [step for step in dspy.settings.trace or [] if id(step[0]) not in self._ends]
        return prediction

    def _failed(self, error: Exception) -> Exception:
        self._error = error
        return error

    def _again(self, answer: dspy.Prediction) -> dspy.Prediction:
        if dspy.settings.trace is not None:
            dspy.settings.trace[:0] = self._steps
        return answer if self._first is None else self._first.copy(**dict(answer.items()))


def _threaded(program: dspy.Module) -> Any:
    async def acall(**inputs: Any) -> Any:
        return await in_thread(program, **inputs)

    return acall
