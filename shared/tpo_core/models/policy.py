"""Who answers ``Generate``: the protocols of a policy and of a chat model, and the policy made of chat models."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol, TypeGuard, runtime_checkable

from tpo_core.loop.effects import Generate, Task
from tpo_core.prompts.modeltext import without_reasoning
from tpo_core.prompts.reading import read
from tpo_core.prompts.rendering import as_messages, render
from tpo_core.values import Completion, Message

__all__ = ["AfterFirst", "ChatModel", "ChatPolicy", "Policy", "Remembering", "is_policy"]


@runtime_checkable
class Policy(Protocol):
    """The user's program with its critic and editor, as the drivers see them.

    Sync and async calls answer the same request; a policy need be safe to call from several threads at once.
    """

    takes_n: MutableMapping[Task, bool]
    """For each task, whether one call may ask for several samples; a task that is missing is not known yet, and the
    driver enters what it finds out."""

    fatal: tuple[type[Exception], ...]
    """Exceptions that end the run instead of costing one sample: the host's control flow, such as an interrupt."""

    def generate(self, request: Generate, seeds: Sequence[int]) -> Sequence[Completion]:
        """Return one completion per seed; fewer are topped up by the driver, and an exception costs these seeds only.

        Args:
            request: What is asked; ``request.n`` and ``request.seeds`` belong to the whole, this call is for ``seeds``.
            seeds: One number per sample wanted now; always one where ``takes_n`` is False.
        """

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> Sequence[Completion]:
        """Answer as ``generate`` does, without blocking."""


_OF_POLICIES = tuple(name for name in {**Policy.__annotations__, **vars(Policy)} if not name.startswith("_"))


def is_policy(thing: Any) -> TypeGuard[Policy]:
    """Return whether ``thing`` is a ``Policy``; ``isinstance`` reads the protocol anew each time before Python 3.12."""
    return all(hasattr(thing, name) for name in _OF_POLICIES)


@runtime_checkable
class Remembering(Protocol):
    """What a policy has besides where whole requests are remembered, failures included.

    A driver asks it before it makes any call, and tells it what the loop is answered.
    """

    def recall(self, request: Generate) -> list[Completion] | None:
        """Return what the loop was answered to this request before; None where it is to be asked."""

    def settle(self, request: Generate, completions: Sequence[Completion]) -> None:
        """Take what the loop is answered, once no more calls are made for the request."""


@runtime_checkable
class ChatModel(Protocol):
    """A language model that takes chat messages. ``LiteLLMChat`` and ``LocalChat`` are two."""

    name: str
    """How errors and traces call it."""
    takes_n: bool | None
    """Whether one request may bring several completions; None for not known yet."""

    def chat(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        logprobs: int = 0,
    ) -> list[Completion]:
        """Return up to ``n`` completions, the request's whole usage on the first.

        Args:
            messages: ``role`` and ``content`` each.
            n: How many completions to ask for in this one request.
            temperature: None leaves the provider's own; likewise the rest.
            top_p: Nucleus sampling.
            max_tokens: Most tokens of one response.
            seed: For reproducible sampling, where the provider takes one.
            logprobs: Ask for this many alternatives with their log-probabilities at each token, into
                ``Completion.logprobs``; empty there when the provider gives none.

        Raises:
            ModelError: The model cannot be found or reached.
        """

    async def achat(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        logprobs: int = 0,
    ) -> list[Completion]:
        """Answer as ``chat`` does, without blocking."""


class ChatPolicy:
    """A policy made of chat models: the query is their prompt, with no program around it.

    Args:
        policy: The model being aligned.
        critic: Writes the textual loss and gradient; the policy itself by default.
        editor: Writes the updates; the policy itself by default.
        demos: Worked examples for the engine's prompts, by task.
    """

    fatal: tuple[type[Exception], ...] = ()

    def __init__(
        self,
        policy: ChatModel,
        *,
        critic: ChatModel | None = None,
        editor: ChatModel | None = None,
        demos: Mapping[Task, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        """Assign the models to the tasks."""
        critic, editor = critic or policy, editor or policy
        self.models: dict[Task, ChatModel] = {"sample": policy, "loss": critic, "gradient": critic, "update": editor}
        self.takes_n: MutableMapping[Task, bool] = {
            task: model.takes_n for task, model in self.models.items() if model.takes_n is not None
        }
        self._demos = dict(demos or {})

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Ask the task's model."""
        model = self.models[request.task]
        return self._read(request, model.chat(self._messages(request), **_settings(model, request, seeds)))

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Ask the task's model without blocking."""
        model = self.models[request.task]
        return self._read(request, await model.achat(self._messages(request), **_settings(model, request, seeds)))

    def _messages(self, request: Generate) -> list[Message]:
        if request.signature is None:
            return as_messages(request.inputs)
        return render(request.signature, request.inputs, self._demos.get(request.task, ()))

    def _read(self, request: Generate, completions: Sequence[Completion]) -> list[Completion]:
        return [replace(c, text=_text(request, c.text)) for c in completions]


class AfterFirst:
    """A policy whose first sample is already there: an answer that was needed anyway, to see whether it calls a tool.

    It is handed out once; the policy behind is asked for everything else. Where the rest fails, the answer is kept for
    the next request, so that the driver sees what failed.
    """

    def __init__(self, policy: Policy, first: Completion) -> None:
        """Wrap a policy for the length of one run."""
        self._policy = policy
        self.takes_n: MutableMapping[Task, bool] = policy.takes_n
        self.fatal = policy.fatal
        self._first = [first]

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

    @property
    def models(self) -> Mapping[Task, ChatModel]:
        """Return the chat models behind, where the policy is made of some."""
        models: Mapping[Task, ChatModel] = getattr(self._policy, "models", {})
        return models

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


def _text(request: Generate, said: str) -> str:
    if request.signature is None:
        return without_reasoning(said)
    return read(request.signature, said, request.inputs)


def _settings(model: ChatModel, request: Generate, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "n": len(seeds),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "seed": seeds[0] if request.send_seed else None,
        **({"salt": seeds[0]} if getattr(model, "takes_salt", False) else {}),
    }
