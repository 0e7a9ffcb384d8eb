"""What a refined chain consists of: the chain, who criticises, who edits, and how its objects become text and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from tpo_core import Candidate, InvalidInputError
from tpo_core.loop.effects import Generate, Task
from tpo_core.masking import Secrets
from tpo_core.prompts.reading import read
from tpo_core.prompts.rendering import render
from tpo_langchain.chain import Anatomy, Core, dissect, models_of
from tpo_langchain.convert import can_remake, remade, replace_text, text_of

__all__ = ["Parts", "TunedPrompt"]


@dataclass(frozen=True)
class TunedPrompt:
    """One of the loop's prompts in other words."""

    instructions: str
    """Instead of the built-in instructions."""
    demos: tuple[Mapping[str, Any], ...] = ()
    """Worked examples, each with the prompt's input fields and its output field."""


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

    @classmethod
    def of(cls, chain: Runnable[Any, Any], llm: Any, critic: Any, editor: Any, **rest: Any) -> Parts:
        """Assign the models: what is not given is ``llm``, and that is the chain's own model by default."""
        anatomy = dissect(chain)
        llm = llm or anatomy.llm
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
    def choices(self) -> tuple[str, ...]:
        """Return the ids under which a call may configure the models, or choose others."""
        own = (self.chain, self.critic, self.editor)
        return tuple(spec.id for part in own if part is not None for spec in part.config_specs)

    def chosen(self, configurable: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what a call configures of the models: what is learnt about them holds for that."""
        return tuple(f"{name}={configurable[name]!r}" for name in self.choices if name in configurable)

    def check(self, rounds: int) -> None:
        """Refuse a loop that would have no one to ask.

        Raises:
            InvalidInputError: There are rounds to run, and no model is given or found.
        """
        if rounds and (self.critic is None or (self.editor is None and not self.anatomy.structured)):
            raise InvalidInputError(
                "no chat model is found in the chain to write critiques and updates: give llm= one, or mode='bon'"
            )

    def messages(self, request: Generate) -> list[Any]:
        """Return the prompt of a loss, gradient or update as chat messages."""
        assert request.signature is not None
        tuned = self.prompts.get(request.task)
        if tuned is None:
            return render(request.signature, request.inputs)
        return render(request.signature.with_instructions(tuned.instructions), request.inputs, tuned.demos)

    def text(self, value: Any, message: AIMessage | None) -> str:
        """Return an output as text, where the user has no renderer: as written, where the chain parses what was.

        Data stays JSON: it is cleaner than what models write around it, and its parsers read it as well.
        """
        written = message.text if message is not None and self.anatomy.after and not self.anatomy.structured else ""
        if written.strip() and not isinstance(value, (str, BaseMessage, BaseModel, dict)):
            return str(written)
        return text_of(value)

    def core(self, task: Task) -> Core | None:
        """Return the model that may be asked for n samples of a task in one request; None where there is none."""
        if task == "sample" or (task == "update" and self.editor is None):
            core = self.anatomy.core
        else:
            core = dissect(self.editor).core if task == "update" and self.editor is not None else None
        return core if core is not None and _takes_n(core) else None

    def writer(self, request: Generate) -> Runnable[Any, Any]:
        """Return what writes one loss, gradient or update, from messages."""
        if request.task == "update":
            return self.anatomy.from_model if self.editor is None else self.editor | self._updated(request)
        assert self.critic is not None

        def said(message: Any) -> str:
            return _read(request, message)

        return self.critic | RunnableLambda(said, name="read")

    def after(self, request: Generate) -> Runnable[Any, Any] | None:
        """Return what is done with each message that the model wrote: for a sample the rest of the chain."""
        return self.anatomy.tail if request.task == "sample" or self.editor is None else self._updated(request)

    def must_parse(self, value: Any) -> bool:
        """Say whether an update could not become an output like this one, for want of a parser."""
        return self.parser is None and self.anatomy.model is None and not can_remake(value)

    def _updated(self, request: Generate) -> Runnable[Any, Any]:
        """Return what makes the chain's own kind of output of what the editor wrote."""
        parent = request.parent or Candidate("")

        def reread(said: Any) -> Any:
            if not isinstance(said, (str, BaseMessage)):  # an editor with an output format of its own
                return said
            text = _read(request, said)
            if isinstance(self.parser, Runnable):
                return text
            if self.parser is not None or self.anatomy.model is None:
                return remade(text, parent.value, self.parser)
            return replace_text(said, text) if isinstance(said, AIMessage) else text

        step = RunnableLambda(reread, name="read")
        tail = self.parser if self.parser is not None else self.anatomy.tail
        return step | tail if isinstance(tail, Runnable) else step


def _read(request: Generate, said: Any) -> str:
    assert request.signature is not None
    return read(request.signature, text_of(said))


def _takes_n(core: Core) -> bool:
    """Say whether to try a request with n. langchain-openai parses a ``response_format`` for one choice only."""
    model = core.model
    free = not {"n", "response_format"} & set(core.kwargs) and not getattr(model, "streaming", False)
    return free and "n" in type(model).model_fields
