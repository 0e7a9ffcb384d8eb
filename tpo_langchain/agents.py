"""Refine what agents answer, and nothing else that they do: tools are called once, and only by the agent itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict

from tpo_core import InvalidInputError
from tpo_langchain.caching import llm_key
from tpo_langchain.final_text import not_streaming
from tpo_langchain.first_answer import is_final
from tpo_langchain.memory import Memories
from tpo_langchain.runnable import RunnableTPO
from tpo_langchain.settings import spread
from tpo_langchain.tracing import Meter

__all__ = ["TPOMiddleware"]


class TPOMiddleware(AgentMiddleware[Any, Any, Any]):
    """Refines the final answer of an agent made by ``create_agent``.

    A model step that calls a tool or fills a response format passes through: it costs its one request. A step that
    answers in words is the first sample; the others are the same step asked again, and one that calls a tool is no
    candidate. Only the refined message enters the agent's state, and only it is streamed.

    Args:
        reward: What the answer is aligned to; see ``RunnableTPO``. Its prompt is the whole conversation.
        critic: Writes the critiques; by default the agent's own model.
        editor: Writes the updates; by default the agent's own model.
        reference: What the answer is compared with, where the reward asks for it: a function of the list of messages.
        query: Picks what is asked out of the list of messages, system prompt first; by default all of them.
        prompts: The loop's prompts in other words; see ``load_prompts``.
        config: A ``TPOConfig``: all settings at once; what is given beside it wins.
        **settings: The fields of ``LoopSettings``.

    Raises:
        InvalidInputError: An argument is wrong.

    Example:
        >>> agent = create_agent(model, tools, middleware=[TPOMiddleware(reward=reward)])  # doctest: +SKIP
    """

    def __init__(
        self,
        reward: Any = None,
        *,
        critic: Runnable[Any, Any] | None = None,
        editor: Runnable[Any, Any] | None = None,
        query: Any = None,
        reference: Any = None,
        prompts: Any = None,
        **settings: Any,
    ) -> None:
        """Check everything that can be checked before an agent runs."""
        super().__init__()
        self.tools = []
        models = {"critic": critic, "editor": editor}
        parts = {"reward": reward, **models, "query": query, "reference": reference, "prompts": prompts or {}}
        self._given = {**spread(settings), **parts}
        self._memories = Memories()
        nobody = RunnableTPO(_nobody, **{**self._given, "mode": "bon"})
        self._given["reward"] = nobody.reward

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Answer a model step, refined where it is the final one."""
        request, meter = _quiet(request), Meter(watching=True)
        response = handler(_metered(request, meter))
        if (first := _answer(response)) is None:
            return response
        refiner = self._refiner(request, handler).after_first(first, meter.seen)
        return _with_answer(response, refiner.invoke(_conversation(request)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """Answer a model step without blocking."""
        request, meter = _quiet(request), Meter(watching=True)
        response = await handler(_metered(request, meter))
        if (first := _answer(response)) is None:
            return response
        refiner = self._refiner(request, handler).after_first(first, meter.seen)
        return _with_answer(response, await refiner.ainvoke(_conversation(request)))

    def _refiner(self, request: ModelRequest[Any], handler: Any) -> RunnableTPO:
        step = ModelStep(model=request.model, request=request, handler=handler)
        refiner = RunnableTPO(step, llm=request.model, **self._given)
        refiner.remember(self._memories, llm_key(request.model))
        return refiner.as_part()


class ModelStep(RunnableSerializable[Any, Any]):
    """An agent's model step as a Runnable: what its request and the other middleware make of it, asked once more."""

    model: BaseChatModel
    """The model, as the loop sets it up for one sample."""
    request: Any
    handler: Any

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Ask the step again; the input is what its request holds already."""
        return self._call_with_config(self._invoke, input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Ask the step again, without blocking."""
        return await self._acall_with_config(self._ainvoke, input, config)

    def _invoke(self, given: Any) -> Any:
        return _message(self.handler(self.request.override(model=self.model)))

    async def _ainvoke(self, given: Any) -> Any:
        return _message(await self.handler(self.request.override(model=self.model)))


def _nobody(messages: Any) -> str:
    return ""


def _quiet(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """Keep tokens off the user's screen until they are final: LangGraph shows no model with this tag."""
    if not isinstance(request.model, BaseChatModel):
        raise InvalidInputError(f"model must be a chat model, not {type(request.model).__name__}")
    tags = [*(request.model.tags or []), "nostream"]
    return request.override(model=not_streaming(request.model).model_copy(update={"tags": tags}))


def _metered(request: ModelRequest[Any], meter: Meter) -> ModelRequest[Any]:
    """Return a request whose model tells a meter what reaches it: other middleware may show it more."""
    told = request.model.callbacks
    if isinstance(told, BaseCallbackManager):
        told = told.copy()
        told.add_handler(meter, inherit=False)
    else:
        told = [*(told or []), meter]
    return request.override(model=request.model.model_copy(update={"callbacks": told}))


def _conversation(request: ModelRequest[Any]) -> list[BaseMessage]:
    return [*([request.system_message] if request.system_message else []), *request.messages]


def _message(response: Any) -> Any:
    if isinstance(response, ExtendedModelResponse):
        response = response.model_response
    return response.result[-1] if isinstance(response, ModelResponse) else response


def _answer(response: Any) -> AIMessage | None:
    """Return the final answer in words, or None for a step that calls a tool or fills a response format."""
    inner = response.model_response if isinstance(response, ExtendedModelResponse) else response
    if isinstance(inner, ModelResponse) and inner.structured_response is not None:
        return None
    message = _message(response)
    return message if is_final(message) else None


def _with_answer(response: Any, answer: AIMessage) -> Any:
    """Return a response that is the same but for its last message."""
    if isinstance(response, ExtendedModelResponse):
        return replace(response, model_response=_with_answer(response.model_response, answer))
    if isinstance(response, ModelResponse):
        return replace(response, result=[*response.result[:-1], answer])
    return answer
