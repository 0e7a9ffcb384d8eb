"""What chat models over the network share: how a request is written, its answer read, and its errors explained."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tpo_core.cache_keys import made_of, unsigned
from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.masking import Secrets, hidden_errors, public
from tpo_core.models.refusals import Fitting, status_of
from tpo_core.values import Completion, Message

__all__ = ["ServedChat"]

logger = logging.getLogger(__name__)

_UNUSABLE = {
    "AuthenticationError", "NotFoundError", "APIConnectionError", "PermissionDeniedError",
}  # fmt: skip
"""The clients' errors that say that the model cannot be used at all; they are named alike."""


class ServedChat(ABC):
    """A chat model that answers in the OpenAI format, whichever client asks it.

    Sampling settings are wishes: a model that refuses a temperature, top_p or a seed (reasoning models, say) is asked
    without it, from then on at once.

    Args:
        model: Its name, as the user wrote it.
        api_base: Where it is; None leaves that to the client.
        api_key: None leaves it to the client's environment variables.
        **settings: Passed on with each request.
    """

    _kind: str
    """What tells its cache keys from those of other clients."""

    def __init__(self, model: str, *, api_base: str | None = None, api_key: str | None = None, **settings: Any) -> None:
        """Note where the model is; nothing is asked yet."""
        if not isinstance(model, str) or not model.strip():
            raise InvalidInputError(f"model must be a model string such as 'openai/gpt-4o-mini', not {model!r}")
        self.name = model
        self.takes_n: bool | None = None
        self._settings = {"api_base": api_base, "api_key": api_key, **settings}
        self._secrets = Secrets(**self._settings)
        self._refused: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        """Name the model, and no key."""
        return f"{type(self).__name__}({self.name!r})"

    @property
    def cache_key(self) -> str | None:
        """Return what tells it from other models: name, address and settings, but for who asks."""
        return made_of(self._kind, name=self.name, settings=unsigned(self._settings))

    def chat(self, messages: Sequence[Message], **settings: Any) -> list[Completion]:
        """Ask; see ``ChatModel.chat``."""
        fitting = Fitting(_request(messages, **settings), self._refused)
        with self._explaining():
            while True:
                try:
                    return self._learnt(fitting, self._create(dict(fitting.request)))
                except Exception as error:
                    if not fitting.drop(error):
                        raise

    async def achat(self, messages: Sequence[Message], **settings: Any) -> list[Completion]:
        """Ask without blocking."""
        fitting = Fitting(_request(messages, **settings), self._refused)
        with self._explaining():
            while True:
                try:
                    return self._learnt(fitting, await self._acreate(dict(fitting.request)))
                except Exception as error:
                    if not fitting.drop(error):
                        raise

    def _learnt(self, fitting: Fitting, answer: list[Completion]) -> list[Completion]:
        """Remember what the model was asked without, now that it has answered."""
        if new := fitting.refused - self._refused:
            logger.info("%s refuses %s, and is asked without", self.name, ", ".join(sorted(new)))
            self._refused |= new
        return answer

    @abstractmethod
    def _create(self, request: dict[str, Any]) -> list[Completion]:
        """Send a request of the OpenAI chat format, but for the model, and read the response."""

    @abstractmethod
    async def _acreate(self, request: dict[str, Any]) -> list[Completion]:
        """Send a request without blocking."""

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say what to do about an error that is known, and show nothing secret in any."""
        with hidden_errors():
            try:
                yield
            except Exception as error:
                if (explained := self._explained(error)) is error:
                    raise
                raise explained from error

    def _advice(self, status: int | None) -> str:
        """Return what to do about a status, as the end of a message."""
        return "; give it a key that is valid there: set api_key= or the provider's variable" if status == 401 else ""

    def _explained(self, error: Exception) -> Exception:
        if type(error).__name__ in _UNUSABLE or "Connection error" in str(error):
            base = self._settings["api_base"]
            where = public(base) if base else "its provider"
            told = f"{self.name} cannot be used at {where}: {_first_line(error)}"
            return ModelError(told + self._advice(status_of(error)))
        return error


def _request(messages: Sequence[Message], *, n: int = 1, logprobs: int = 0, **sampling: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {**sampling, "n": n if n > 1 else None}
    if logprobs:
        wanted |= {"logprobs": True, "top_logprobs": logprobs}
    return {"messages": [dict(m) for m in messages], **{k: v for k, v in wanted.items() if v is not None}}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
