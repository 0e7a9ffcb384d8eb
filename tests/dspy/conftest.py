"""A scripted language model for DSPy: it answers by what stands in the prompt, in the style an adapter expects."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Response, StreamDeltaEvent, StreamEndEvent, StreamStartEvent, TextDelta, Usage

Rule = tuple[str, Any]

_numbers = count()


class Script:
    """Answers the first rule whose needle stands in the prompt.

    A rule's answer is a text, a dict of fields (written in the style), an exception, or a function of (prompt, number)
    that returns one; the number counts this script's answers from 1.
    """

    supports_function_calling = False

    def __init__(self, rules: Sequence[Rule], style: str = "chat", finish: str = "stop") -> None:
        self.rules, self.style, self.finish = list(rules), style, finish
        self.requests: list[Any] = []
        self.prompts: list[str] = []
        self._lock = threading.Lock()

    def complete(self, request: Any) -> Response:
        text = self._text(request)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(text),
            finish_reason=self.finish,
            usage=Usage(input_tokens=10, output_tokens=3),
        )

    def stream(self, request: Any) -> Iterator[Any]:
        yield StreamStartEvent(model=request.model)
        yield StreamDeltaEvent(TextDelta(self._text(request)))
        yield StreamEndEvent(finish_reason=self.finish, usage=Usage(input_tokens=10, output_tokens=3))

    def _text(self, request: Any) -> str:
        prompt = "\n".join([str(request.system or ""), *(str(m.text) for m in request.messages)])
        with self._lock:
            self.requests.append(request)
            self.prompts.append(prompt)
            number = len(self.requests)
        for needle, answer in self.rules:
            if needle in prompt:
                said = answer(prompt, number) if callable(answer) else answer
                if isinstance(said, BaseException):
                    raise said
                return said if isinstance(said, str) else written(said, self.style)
        raise AssertionError(f"no rule answers:\n{prompt}")

    def asked(self, needle: str) -> int:
        """Count the prompts with the needle."""
        return sum(needle in prompt for prompt in self.prompts)


class AsyncScript:
    def __init__(self, script: Script) -> None:
        self.script = script

    async def complete(self, request: Any) -> Response:
        return self.script.complete(request)

    async def stream(self, request: Any) -> Any:
        for event in self.script.stream(request):
            yield event


def written(fields: dict[str, Any], style: str) -> str:
    """Write fields as an adapter expects them."""
    if style in ("json", "baml"):
        return json.dumps(fields)
    plain = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
    if style == "xml":
        return "\n".join(f"<{k}>\n{v}\n</{k}>" for k, v in plain.items())
    return "\n\n".join(f"[[ ## {k} ## ]]\n{v}" for k, v in plain.items()) + "\n\n[[ ## completed ## ]]"


def make_lm(rules: Sequence[Rule], style: str = "chat", *, cache: bool = True, **settings: Any) -> dspy.LM:
    """Return an LM with a name of its own, so that no two share a cache entry; ``lm.engine`` is its Script."""
    finish = settings.pop("finish", "stop")
    script = Script(rules, style, finish)
    return dspy.LM(
        f"scripted/{next(_numbers)}", engine=script, async_engine=AsyncScript(script), cache=cache, **settings
    )


@pytest.fixture
def scripted() -> Callable[..., dspy.LM]:
    """Make scripted LMs: ``scripted([(needle, answer), ...], style="json")``."""
    return make_lm


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """Undo what a test configures."""
    before = dict(dspy.settings.config)
    yield
    dspy.configure(**before)
