"""A language model for DSPy that takes no time, and the bare calls that a refinement makes of it."""

from __future__ import annotations

import itertools
import re
from typing import Any

import dspy
from dspy.lm15 import Message, Response, Usage
from dspy.utils.callback import BaseCallback

_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
_number = itertools.count()


class _Instant:
    """Writes the output field that the prompt asks for, something else each time."""

    supports_function_calling = False

    def complete(self, request: Any) -> Response:
        output = [name for name in _FIELD.findall(str(request.messages[-1].text)) if name != "completed"][-1]
        said = f"[[ ## {output} ## ]]\nAn answer of a few words, number {next(_number)}"
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(f"{said}\n\n[[ ## completed ## ]]"),
            finish_reason="stop",
            usage=Usage(input_tokens=10, output_tokens=10),
        )


class _AsyncInstant:
    async def complete(self, request: Any) -> Response:
        return _Instant().complete(request)


def instant_lm() -> dspy.LM:
    """Return an LM that answers at once; nothing is cached."""
    return dspy.LM("instant/lm", engine=_Instant(), async_engine=_AsyncInstant(), cache=False)


class BareCalls(BaseCallback):
    """The calls of predictors that a program made, to be made again one after the other."""

    def __init__(self) -> None:
        self.made: list[tuple[dspy.Predict, dict[str, Any]]] = []

    @classmethod
    def of(cls, program: dspy.Module, **inputs: Any) -> BareCalls:
        """Run a program once, and note the calls of its predictors."""
        calls = cls()
        with dspy.context(callbacks=[calls]):
            program(**inputs)
        return calls

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Note a predictor's call."""
        if isinstance(instance, dspy.Predict):
            self.made.append((instance, dict(inputs["kwargs"])))

    def call(self) -> None:
        """Make the calls."""
        for predictor, inputs in self.made:
            predictor(**inputs)

    async def acall(self) -> None:
        """Make the calls without blocking."""
        for predictor, inputs in self.made:
            await predictor.acall(**inputs)
