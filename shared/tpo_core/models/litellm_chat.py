"""Chat models over the network, through litellm: any provider's model string, any OpenAI-compatible server."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from tpo_core.cache_keys import made_of, unsigned
from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.masking import Secrets, hidden_errors, public
from tpo_core.models.openai_format import _completions
from tpo_core.values import Completion, Message

__all__ = [
    "LiteLLMChat",
]

_UNUSABLE = {"AuthenticationError", "NotFoundError", "APIConnectionError", "PermissionDeniedError"}
"""litellm's errors that say that the model cannot be used at all."""


class LiteLLMChat:
    """A model named as litellm names it; litellm itself is loaded at the first call.

    Args:
        model: A litellm model string, such as ``openai/gpt-4o-mini``, ``anthropic/claude-sonnet-4-5`` or
            ``hosted_vllm/Qwen/Qwen3-8B``. For an OpenAI-compatible server, ``openai/<name>`` with ``api_base``.
        api_base: The server's URL, ending in ``/v1`` where it is OpenAI-compatible.
        api_key: None leaves it to litellm's environment variables.
        **settings: Passed on with each request (``timeout``, ``extra_headers``, ...).

    Example:
        >>> LiteLLMChat("openai/smol", api_base="http://127.0.0.1:8080/v1").name
        'openai/smol'
    """

    def __init__(self, model: str, *, api_base: str | None = None, api_key: str | None = None, **settings: Any) -> None:
        """Note where the model is; nothing is asked yet."""
        if not isinstance(model, str) or not model.strip():
            raise InvalidInputError(f"model must be a litellm model string such as 'openai/gpt-4o-mini', not {model!r}")
        self.name = model
        self.takes_n: bool | None = None
        if api_base is not None and api_key is None and model.startswith("openai/"):
            api_key = "none"  # a server of one's own seldom asks for a key, and the client refuses to go without
        self._settings = {"api_base": api_base, "api_key": api_key, **settings}
        self._secrets = Secrets(**self._settings)
        if api_base is not None and model.startswith("openai/"):
            self._settings |= _signed(api_base, settings.get("extra_headers"))

    def __repr__(self) -> str:
        """Name the model, and no key."""
        return f"LiteLLMChat({self.name!r})"

    @property
    def cache_key(self) -> str | None:
        """Return what tells it from other models: name, address and settings, but for who asks."""
        return made_of("litellm", name=self.name, settings=unsigned(self._settings))

    def chat(self, messages: Sequence[Message], **settings: Any) -> list[Completion]:
        """Ask; see ``ChatModel.chat``."""
        import litellm

        with self._explaining():
            return _completions(litellm.completion(**self._request(messages, **settings)))

    async def achat(self, messages: Sequence[Message], **settings: Any) -> list[Completion]:
        """Ask without blocking."""
        import litellm

        with self._explaining():
            return _completions(await litellm.acompletion(**self._request(messages, **settings)))

    def _request(
        self, messages: Sequence[Message], *, n: int = 1, logprobs: int = 0, **sampling: Any
    ) -> dict[str, Any]:
        wanted: dict[str, Any] = {**sampling, "n": n if n > 1 else None}
        if logprobs:
            wanted |= {"logprobs": True, "top_logprobs": logprobs}
        given = {k: v for k, v in {**self._settings, **wanted}.items() if v is not None}
        # caching off: equal requests are different samples here
        return {"model": self.name, "messages": [dict(m) for m in messages], "caching": False, **given}

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

    def _explained(self, error: Exception) -> Exception:
        if type(error).__name__ in _UNUSABLE or "Connection error" in str(error):
            base = self._settings["api_base"]
            where = public(base) if base else "its provider"
            return ModelError(f"{self.name} cannot be used at {where}: {_first_line(error)}")
        if "LLM Provider NOT provided" in str(error):
            return InvalidInputError(
                f"model {self.name!r} names no provider; write provider/model, such as openai/{self.name}"
            )
        return error


def _signed(api_base: str, headers: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the settings for a URL with user and password: as a header, since litellm's async client refuses both."""
    user, at, _ = urlsplit(api_base).netloc.rpartition("@")
    if not at:
        return {}
    name, _, password = (unquote(part) for part in user.partition(":"))
    sign = base64.b64encode(f"{name}:{password}".encode()).decode()
    bare = api_base.replace(f"{user}@", "", 1)
    return {"api_base": bare, "extra_headers": {"Authorization": f"Basic {sign}", **(headers or {})}}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
