"""What is learnt about models while they are used, and kept from call to call."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass, field

from tpo_core.loop.effects import Task

__all__ = ["Memories", "Memory"]

_MOST = 256
"""How many are kept: more models than one object is asked to use, and little memory."""


@dataclass
class Memory:
    """What is known about the models that sample, criticise and edit together."""

    takes_n: MutableMapping[Task, bool] = field(default_factory=dict)
    no_system: set[str] = field(default_factory=set)
    """Who refuses a system message: ``critic``, ``editor``."""
    warned: bool = False
    """Whether it was said that the LLM cache may make samples equal."""


class Memories:
    """A memory for each combination of models, by what tells it from others; the oldest are forgotten."""

    def __init__(self) -> None:
        """Know nothing."""
        self._kept: dict[Hashable, Memory] = {}

    def of(self, models: Hashable) -> Memory:
        """Return the memory of these models, the same one each time; several threads may ask."""
        memory = self._kept.setdefault(models, Memory())
        while len(self._kept) > _MOST:
            self._kept.pop(next(iter(list(self._kept))), None)
        return memory
