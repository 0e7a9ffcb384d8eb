"""A chat model that takes no time, and the bare calls that make the requests of a refinement."""

import itertools
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tracers.base import BaseTracer

_number = itertools.count()


class Instant(BaseChatModel):
    """Answers at once, with something else each time; takes ``n``."""

    n: int | None = None
    asked: Any = None
    """Where the messages of each request are kept, with n, if anywhere."""

    def _generate(self, messages, stop=None, run_manager=None, n=None, **kwargs):
        return self._answer(messages, n)

    async def _agenerate(self, messages, stop=None, run_manager=None, n=None, **kwargs):
        return self._answer(messages, n)

    def _answer(self, messages, n):
        if self.asked is not None:
            self.asked.append((list(messages), n))
        return ChatResult(generations=[ChatGeneration(message=_message(n or 1)) for _ in range(n or 1)])

    @property
    def _llm_type(self):
        return "instant"


def _message(n):
    """Write an answer; each of several reports what all of them cost, as those of OpenAI's models do."""
    usage = {"input_tokens": 10, "output_tokens": 10 * n, "total_tokens": 10 + 10 * n}
    return AIMessage(f"An answer of a few words, number {next(_number)}", usage_metadata=usage)


class Bare:
    """The same requests as ``asked`` holds, as LangChain's own calls, one after the other."""

    def __init__(self, model, asked):
        self.model, self.asked = model, asked

    def invoke(self, config=None):
        for messages, n in self.asked:
            if n is None:
                self.model.invoke(messages, config)
            else:
                self.model.generate([messages], n=n, callbacks=(config or {}).get("callbacks"))

    async def ainvoke(self, config=None):
        for messages, n in self.asked:
            if n is None:
                await self.model.ainvoke(messages, config)
            else:
                await self.model.agenerate([messages], n=n, callbacks=(config or {}).get("callbacks"))


class Forgetful(BaseTracer):
    """A tracer that keeps nothing of what it saw."""

    def _persist_run(self, run):
        pass


def scattered(prompt, response):
    """Grade in a way that has nothing to do with the order in which answers come."""
    return int(response.rpartition(" ")[2]) * 2654435761 % 1000
