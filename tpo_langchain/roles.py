"""What a refined chain consists of: the chain, who criticises, who edits, and how its objects become text and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache, partial, reduce
from operator import or_
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from tpo_core import Candidate, InvalidInputError
from tpo_core.loop.effects import Generate, Task
from tpo_core.masking import Secrets
from tpo_core.pace import Pace
from tpo_core.prompts.modeltext import without_reasoning
from tpo_core.prompts.reading import read
from tpo_core.prompts.rendering import render
from tpo_core.records import repr_without_texts
from tpo_langchain.chain import Anatomy, Core, dissect, models_inside, models_of
from tpo_langchain.convert import can_remake, remaker, replace_text, text_of
from tpo_langchain.formats import format_asked, format_like
from tpo_langchain.query import Query
from tpo_langchain.tails import Paces, Tail

__all__ = ["Parts", "TunedPrompt"]


_TURNS: Mapping[Any, Callable[[Any], BaseMessage]] = {
    "system": lru_cache(SystemMessage),  # as the messages of a prompt template, the same object in every prompt
    "user": HumanMessage,
    "assistant": AIMessage,
}


@dataclass(frozen=True)
class TunedPrompt:
    """One of the loop's prompts in other words."""

    instructions: str
    """Instead of the built-in instructions."""
    demos: tuple[Mapping[str, Any], ...] = ()
    """Worked examples, each with the prompt's input fields and its output field."""

    __repr__ = repr_without_texts()


@dataclass(frozen=True)
class Parts:
    """The parts, each as the user gave it."""

    chain: Runnable[Any, Any]
    critic: Runnable[Any, Any] | None
    """Writes losses and gradients."""
    editor: Runnable[Any, Any] | None
    """Writes updates; None where the chain's own structured model does."""
    query: Any = None
    parser: Any = None
    render: Callable[[Any], str] | None = None
    prompts: Mapping[Task, TunedPrompt] = field(default_factory=dict)

    __repr__ = repr_without_texts()

    @classmethod
    def of(cls, chain: Runnable[Any, Any], llm: Any, critic: Any, editor: Any, **rest: Any) -> Parts:
        """Assign the models: what is not given is ``llm``, and that is the chain's own model by default."""
        anatomy = dissect(chain)
        if llm is None and (llm := anatomy.llm) is None:
            inside = {id(model): model for model in models_inside(chain)}
            llm = next(iter(inside.values())) if len(inside) == 1 else None
        if editor is None and not (anatomy.structured and rest.get("parser") is None):
            editor = llm
        return cls(chain, critic or llm, editor, **rest)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Return the chain's steps around its model."""
        return dissect(self.chain)

    @cached_property
    def secrets(self) -> list[Secrets]:
        """Return what must not stand in errors: the models' keys, headers and addresses."""
        return [Secrets(**vars(model)) for model in models_of([self.chain, self.critic, self.editor])]

    @cached_property
    def asking(self) -> Query:
        """Return what finds the query in an input."""
        anatomy = self.anatomy
        return Query(self.query, anatomy.prompt, more=bool(anatomy.before) or anatomy.model is None)

    @property
    def contextual(self) -> bool:
        """Return whether each sample keeps what its model was given; see ``Candidate.context``."""
        return self.query is None

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """Return the ids under which a call may configure the models, or choose others."""
        own = (self.chain, self.critic, self.editor)
        return tuple(spec.id for part in own if part is not None for spec in part.config_specs)

    def chosen(self, configurable: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what a call configures of the models: what is learnt about them holds for that."""
        return tuple(f"{name}={configurable[name]!r}" for name in self.choices if name in configurable)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what is made of the parts while they are used."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def check(self, rounds: int) -> None:
        """Refuse a loop that would have no one to ask.

        Raises:
            InvalidInputError: There are rounds to run, and no model is given or found.
        """
        if rounds and (self.critic is None or (self.editor is None and not self.anatomy.structured)):
            several = {id(model): model for model in models_inside(self.chain)}
            if len(several) > 1:
                kinds = ", ".join(sorted({type(model).__name__ for model in several.values()}))
                raise InvalidInputError(
                    f"several chat models are found in the chain ({len(several)}: {kinds}), and it does not say which "
                    "writes critiques and updates: name one with llm=, or take mode='bon'"
                )
            raise InvalidInputError(
                "no chat model is found in the chain to write critiques and updates: give llm= one, or mode='bon'"
            )

    def messages(self, request: Generate) -> list[BaseMessage]:
        """Return the prompt of a loss, gradient or update as chat messages."""
        assert request.signature is not None
        tuned = self.prompts.get(request.task)
        demos, instructions = ((), None) if tuned is None else (tuned.demos, tuned.instructions)
        if request.task == "update" and (form := self._format(request.parent)):
            instructions = f"{instructions or request.signature.instructions}\n\nThe response is data. {form}"
        turns = render(request.signature, request.inputs, demos, instructions)
        return [_TURNS[turn["role"]](turn["content"]) for turn in turns]

    def _format(self, parent: Candidate | None) -> str:
        """Return the format in which an editor must write, where its text becomes data."""
        if self.editor is None or self.render is not None:
            return ""
        if self.parser is not None:
            return format_asked([self.parser])
        if self.anatomy.model is not None:
            return self._asked_format
        return format_like(None if parent is None else parent.value)

    @cached_property
    def _asked_format(self) -> str:
        return format_asked(self.anatomy.after)

    def text(self, value: Any, message: AIMessage | None) -> str:
        """Return an output as text, where the user has no renderer: as written, where the chain parses what was.

        Data stays JSON: it is cleaner than what models write around it, and its parsers read it as well.
        """
        if isinstance(value, (str, BaseMessage, BaseModel, dict)) or message is None:
            return text_of(value)
        written = str(message.text) if self.anatomy.after and not self.anatomy.structured else ""
        return without_reasoning(written) if written.strip() else text_of(value)

    @cached_property
    def cores(self) -> Mapping[Task, Core | None]:
        """Return for each task the model that is asked, if it can be by itself; None where a chain must run."""
        own = self.anatomy.core
        critic, editor = (_alone(model) for model in (self.critic, self.editor))
        return {"sample": own, "loss": critic, "gradient": critic, "update": own if self.editor is None else editor}

    def takes_n(self, task: Task) -> bool:
        """Return whether to try one request for several samples of a task."""
        core = self.cores[task]
        return task in ("sample", "update") and core is not None and core.takes_n

    def writer(self, request: Generate) -> Runnable[Any, Any]:
        """Return what writes one loss, gradient or update from messages, as a chain."""
        if request.task == "update" and self.editor is None:
            return self.anatomy.from_model
        writer = self.editor if request.task == "update" else self.critic
        assert writer is not None
        own, steps = self._reading(request)
        return reduce(or_, [RunnableLambda(own, name="read"), *steps], writer)

    def tail(self, request: Generate) -> Tail:
        """Return what is done with the messages that the model wrote: for a sample the rest of the chain."""
        if request.task == "sample" or (request.task == "update" and self.editor is None):
            return self._after
        own, steps = self._reading(request)
        return Tail(own, steps, self._paces)

    @cached_property
    def rendering(self) -> Pace:
        """Return what is known of how quick the renderer is."""
        return Pace()

    @cached_property
    def _after(self) -> Tail:
        return Tail(None, self.anatomy.after, Paces())

    @cached_property
    def _paces(self) -> Paces:
        return Paces()

    @cached_property
    def _remaking(self) -> Callable[[str, Any], Any]:
        return remaker(self.parser)

    def must_parse(self, value: Any) -> bool:
        """Return whether an update could not become an output like this one, for want of a parser."""
        return self.parser is None and self.anatomy.model is None and not can_remake(value)

    def _reading(self, request: Generate) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Return our reading of what was written, and the user's steps after it: an output of the chain's own kind."""
        if request.task != "update":
            return partial(_read, request), ()
        return partial(self._reread, request), self._steps(request.parent or Candidate(""))

    def _reread(self, request: Generate, said: Any) -> Any:
        if not isinstance(said, (str, BaseMessage)):  # an editor with an output format of its own
            return said
        text = _read(request, said)
        if self.parser is not None or self.anatomy.model is None:
            return text
        return replace_text(said, text) if isinstance(said, AIMessage) else text

    def _steps(self, parent: Candidate) -> Sequence[Any]:
        if isinstance(self.parser, Runnable):
            return (self.parser,)
        if self.parser is not None or self.anatomy.model is None:
            return (partial(self._remade, parent),)
        return self.anatomy.after

    def _remade(self, parent: Candidate, said: Any) -> Any:
        return self._remaking(said, parent.value) if isinstance(said, str) else said


def _alone(writer: Runnable[Any, Any] | None) -> Core | None:
    """Return a writer's model where it is nothing but one."""
    anatomy = Anatomy() if writer is None else dissect(writer)
    return None if anatomy.before or anatomy.after else anatomy.core


def _read(request: Generate, said: Any) -> str:
    assert request.signature is not None
    told = said.text if isinstance(said, BaseMessage) else said if isinstance(said, str) else text_of(said)
    return read(request.signature, str(told), request.inputs)
