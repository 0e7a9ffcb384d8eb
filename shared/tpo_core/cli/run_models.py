"""The models of a run: who answers and who scores, found by the names that the command gives."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tpo_core.models.policy import ChatModel

if TYPE_CHECKING:
    from tpo_core.rewards.base import RewardModel
    from tpo_core.runs import Item

__all__ = ["RETRIES", "Closing", "RunModels", "opened_reward"]

RETRIES = 6
"""How often a client asks a judge again that has too much to do: half a minute."""


class RunModels:
    """Who answers and who scores, in this process.

    Args:
        args: Of the command.
        opened: Closes at its end what was found.

    Raises:
        InvalidInputError: A name is no model's.
        ModelError: A model cannot be found or reached.
    """

    def __init__(self, args: argparse.Namespace, opened: ExitStack) -> None:
        """Find the model that answers."""
        from tpo_core.cli.models import is_embedded

        self._args, self._opened = args, opened
        self._chats: dict[tuple[str | None, int], ChatModel] = {}
        self._policies: dict[str | None, Any] = {}
        self.model = self.chat(args.model)
        self.embedded = is_embedded(self.model)

    def make_ready(self) -> None:
        """Find the rest, and load and reach what can be: rather than a failure of every query."""
        self.reward.check()
        self.answering(None)
        self.load()

    def load(self) -> None:
        """Load the models that run in this process."""
        for model in self._chats.values():
            if hasattr(model, "load"):
                model.load()

    @cached_property
    def reward(self) -> RewardModel:
        """Return who scores."""
        return opened_reward(self._opened, self._args.reward, self._args.model, self.judge)

    def chat(self, name: str | None, retries: int = 0) -> ChatModel:
        """Return a model by its name, the same one each time.

        An answer that met an overload is asked for again by the engine, with fewer requests at once; what a judge asks,
        of which the engine does not know, by the client itself.
        """
        from tpo_core.cli.models import find_model

        if (key := (name, retries)) not in self._chats:
            if retries and hasattr(here := self.chat(name), "load"):
                return here  # in this process, and once is enough
            settings = {"max_retries": retries, "timeout": self._args.timeout}
            found = find_model(name, self._args.api_base, listed=True, **settings)
            self._chats[key] = self._opened.enter_context(Closing(found))
        return self._chats[key]

    def judge(self, name: str | None) -> ChatModel:
        """Return a model that judges."""
        return self.chat(name, retries=RETRIES)

    def policy(self, item: Item) -> Any:
        """Return the policy of a query."""
        return self.answering(self.named_by(item))

    def named_by(self, item: Item) -> str | None:
        """Return the model that a query names: a line of an OpenAI batch may, unless the command does."""
        return item.model if self._args.model is None and not self.embedded else None

    def answering(self, name: str | None) -> Any:
        """Return the policy made of a model, by its name, and of the command's critic and editor."""
        from tpo_core.models.local.demos import DEMOS
        from tpo_core.models.policy import ChatPolicy

        if name not in self._policies:
            args, chat = self._args, self.model if name is None else self.chat(name)
            critic, editor = (chat if other is None else self.chat(other) for other in (args.critic, args.editor))
            demos = DEMOS if self.embedded else None
            self._policies[name] = ChatPolicy(chat, critic=critic, editor=editor, demos=demos)
        return self._policies[name]


def opened_reward(
    opened: ExitStack, name: str, model: str | None, judge: Callable[[str | None], ChatModel]
) -> RewardModel:
    """Find a reward, which ``opened`` closes at its end.

    Args:
        opened: Closes it.
        name: As on the command line.
        model: The model that judges where the name says no other.
        judge: Returns a model that judges, by its name.
    """
    from tpo_core.cli.models import find_reward

    found: RewardModel = opened.enter_context(Closing(find_reward(name, judge=lambda: judge(model), named=judge)))
    return found


class Closing:
    """Closes at the end what has ``close``."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __enter__(self) -> Any:
        return self._thing

    def __exit__(self, *raised: object) -> None:
        if hasattr(self._thing, "close"):
            self._thing.close()
