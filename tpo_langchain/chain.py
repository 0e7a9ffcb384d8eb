"""What a chain is made of: the prompt that opens it, the step that is the model, and the parsers after it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any

from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.output_parsers import JsonOutputToolsParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable
from pydantic import BaseModel

from tpo_core.records import repr_without_texts

__all__ = [
    "Anatomy",
    "Core",
    "arguments_of",
    "dissect",
    "model_in",
    "models_inside",
    "models_of",
    "parts_inside",
    "rebuilt",
]

_STRUCTURED = frozenset({"ls_structured_output_format", "structured_output_format", "response_format", "format"})
_NOT_FOR_TEXT = _STRUCTURED | {"tools", "functions", "tool_choice", "function_call", "stop"}


@dataclass(frozen=True)
class Core:
    """A chat model with what is bound to it, where it can be asked for several generations at once."""

    model: BaseChatModel
    kwargs: Mapping[str, Any]
    tags: list[str]
    metadata: Mapping[str, Any]

    __repr__ = repr_without_texts()

    @cached_property
    def whole(self) -> BaseChatModel:
        """Return the model for several answers at once: a stream of those is one that LangChain's models refuse."""
        return self.model.model_copy(update={"disable_streaming": True})

    @property
    def takes_n(self) -> bool:
        """Return whether to try a request with n. langchain-openai parses a ``response_format`` for one choice only."""
        free = not {"n", "response_format"} & set(self.kwargs) and not getattr(self.model, "streaming", False)
        return free and "n" in type(self.model).model_fields

    @property
    def by_front_door(self) -> bool:
        """Return whether the model's class does something of its own when it is invoked."""
        kind = type(self.model)
        return kind.invoke is not BaseChatModel.invoke or kind.ainvoke is not BaseChatModel.ainvoke


@dataclass(frozen=True)
class Anatomy:
    """A chain's steps around its model; ``model`` is None where the chain is no plain sequence with one in it."""

    before: tuple[Runnable[Any, Any], ...] = ()
    model: Runnable[Any, Any] | None = None
    """The step itself, with what is bound to it, its retries and fallbacks."""
    after: tuple[Runnable[Any, Any], ...] = ()
    plain: bool = True
    """Whether the steps are the whole chain: nothing is bound around them."""

    __repr__ = repr_without_texts()

    @property
    def prompt(self) -> BasePromptTemplate[Any] | None:
        """Return the prompt template that opens the chain, or None."""
        first = self.before[0] if self.before else None
        return first if isinstance(first, BasePromptTemplate) else None

    @property
    def tail(self) -> Runnable[Any, Any] | None:
        """Return what the chain does with the model's message, or None."""
        return reduce(or_, self.after) if self.after else None

    @property
    def from_model(self) -> Runnable[Any, Any]:
        """Return the chain from its model on."""
        assert self.model is not None
        return reduce(or_, self.after, self.model)

    @property
    def structured(self) -> bool:
        """Return whether the model is bound to an output format, or to tools read as one: it then writes data."""
        if self.model is None:
            return False
        return bool(_STRUCTURED & _bound(self.model)) or isinstance(next(iter(self.after), None), JsonOutputToolsParser)

    @property
    def core(self) -> Core | None:
        """Return the model, where a request to it between prompts and the rest is all that the chain is; or None."""
        if not self.plain or not all(isinstance(step, BasePromptTemplate) for step in self.before):
            return None
        step: Any = self.model
        kwargs: dict[str, Any] = {}
        tags: list[str] = []
        metadata: dict[str, Any] = {}
        while isinstance(step, RunnableBinding) and not step.config_factories and _labels_only(step.config):
            kwargs = {**step.kwargs, **kwargs}
            tags = [*tags, *step.config.get("tags", [])]
            metadata = {**step.config.get("metadata", {}), **metadata}
            step = step.bound
        return Core(step, kwargs, tags, metadata) if isinstance(step, BaseChatModel) else None

    @property
    def llm(self) -> Runnable[Any, Any] | None:
        """Return the model as one to be asked for text: without tools, output formats and stop words."""
        return None if self.model is None else _freed(self.model)


def dissect(chain: Runnable[Any, Any]) -> Anatomy:
    """Find a chain's model: the last step that is one."""
    plain = True
    while isinstance(chain, RunnableBinding) and model_in(chain) is None:
        chain, plain = chain.bound, False
    steps = _steps(chain)
    places = [i for i, step in enumerate(steps) if model_in(step) is not None]
    if not places:
        return Anatomy(before=tuple(steps), plain=plain)
    at = places[-1]
    return Anatomy(tuple(steps[:at]), steps[at], tuple(steps[at + 1 :]), plain)


def model_in(step: Any) -> BaseLanguageModel[Any] | None:
    """Return the language model that a step is, looking through bindings, retries, fallbacks and the like."""
    if isinstance(step, BaseLanguageModel):
        return step
    if isinstance(step, RunnableParallel):  # with_structured_output(include_raw=True)
        return model_in(step.steps__["raw"]) if set(step.steps__) == {"raw"} else None
    return model_in(inner) if (inner := _inner(step)) is not None else None


def models_of(thing: Any) -> list[BaseLanguageModel[Any]]:
    """Return the language models in a chain, but for those inside plain functions."""
    found: list[BaseLanguageModel[Any]] = []

    def note(model: BaseLanguageModel[Any]) -> BaseLanguageModel[Any]:
        found.append(model)
        return model

    rebuilt(thing, note)
    return found


def parts_inside(thing: Any) -> Iterator[Any]:
    """Yield what a chain is made of, itself first, what its functions name included; nothing of its language models."""
    todo, seen = [thing], set()
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, RunnableLambda):
            todo += part.deps
        elif isinstance(part, (list, tuple)):
            todo += part
        elif isinstance(part, dict):
            todo += part.values()
        elif isinstance(part, BaseModel) and isinstance(part, Runnable) and not isinstance(part, BaseLanguageModel):
            todo += [getattr(part, name) for name in type(part).model_fields]


def arguments_of(chain: Any) -> set[str]:
    """Return the names of the arguments that a chain's parts are known to take beside their input."""
    taken: set[str] = set()
    for part in parts_inside(chain):
        if isinstance(part, BaseLanguageModel):
            taken.update(type(part).model_fields)
        elif isinstance(part, Runnable):
            functions = (type(part).invoke, getattr(part, "func", None), getattr(part, "afunc", None))
            taken.update(*(inspect.signature(fn).parameters for fn in functions if callable(fn)))
    return taken


def models_inside(thing: Any) -> list[BaseLanguageModel[Any]]:
    """Return the language models in a chain, those that its functions name included, each once."""
    return [part for part in parts_inside(thing) if isinstance(part, BaseLanguageModel)]


def rebuilt(thing: Any, change: Callable[[BaseLanguageModel[Any]], BaseLanguageModel[Any]]) -> Any:
    """Return a chain with every language model in it changed; what holds none is the same object.

    Models inside plain functions cannot be reached.
    """
    if isinstance(thing, BaseLanguageModel):
        return change(thing)
    if isinstance(thing, (list, tuple)):
        parts = [rebuilt(part, change) for part in thing]
        return type(thing)(parts) if _differ(parts, thing) else thing
    if isinstance(thing, dict):
        values = {key: rebuilt(value, change) for key, value in thing.items()}
        return values if _differ(values.values(), thing.values()) else thing
    if isinstance(thing, BaseModel) and isinstance(thing, Runnable):
        old = {name: getattr(thing, name) for name in type(thing).model_fields}
        new = {name: value for name, was in old.items() if (value := rebuilt(was, change)) is not was}
        return thing.model_copy(update=new) if new else thing
    return thing


def _steps(chain: Runnable[Any, Any]) -> list[Runnable[Any, Any]]:
    return [inner for step in chain.steps for inner in _steps(step)] if isinstance(chain, RunnableSequence) else [chain]


def _inner(step: Any) -> Any:
    if isinstance(step, RunnableBindingBase):
        return step.bound
    if isinstance(step, RunnableWithFallbacks):
        return step.runnable
    return step.default if isinstance(step, DynamicRunnable) else None


def _bound(step: Any) -> set[str]:
    """Return the names of what is bound to a model on the way to it."""
    if isinstance(step, RunnableParallel):
        return _bound(step.steps__.get("raw"))
    own = set(step.kwargs) if isinstance(step, RunnableBindingBase) else set()
    return own | _bound(inner) if (inner := _inner(step)) is not None else own


def _freed(step: Any) -> Any:
    if isinstance(step, RunnableBinding):
        kept = {name: value for name, value in step.kwargs.items() if name not in _NOT_FOR_TEXT}
        return step.model_copy(update={"bound": _freed(step.bound), "kwargs": kept})
    return model_in(step) if _NOT_FOR_TEXT & _bound(step) else step


def _labels_only(config: RunnableConfig) -> bool:
    return {key for key, value in config.items() if value} <= {"tags", "metadata"}


def _differ(new: Any, old: Any) -> bool:
    return any(a is not b for a, b in zip(new, old, strict=True))
