"""Chat models of any provider, through litellm."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.models.openai_format import completions_of
from tpo_core.models.served import ServedChat
from tpo_core.values import Completion

__all__ = [
    "LiteLLMChat",
]


class LiteLLMChat(ServedChat):
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

    _kind = "litellm"

    def __init__(self, model: str, *, api_base: str | None = None, api_key: str | None = None, **settings: Any) -> None:
        """Note where the model is; nothing is asked yet."""
        compatible = api_base is not None and str(model).startswith("openai/")
        if compatible and api_key is None:
            api_key = "none"  # a server of one's own seldom asks for a key, and the client refuses to go without
        super().__init__(model, api_base=api_base, api_key=api_key, **settings)
        if api_base is not None and compatible:
            self._settings |= _signed(api_base, settings.get("extra_headers"))

    def check(self) -> None:
        """Find out whether the provider's key is there, where that is known; nothing is asked.

        Raises:
            ModelError: It is missing.
        """
        if self._settings["api_key"] or self._settings["api_base"] or self._settings.get("extra_headers"):
            return
        missing = _litellm().validate_environment(self.name)["missing_keys"]
        provider = str(self.name).partition("/")[0].upper()
        if (
            missing
            and all(n.endswith("_API_KEY") for n in missing)
            and not any(n.startswith(provider) for n in os.environ)
        ):
            raise ModelError(f"{self.name} needs a key: set {' or '.join(missing)}, or give api_key=")

    def _create(self, request: dict[str, Any]) -> list[Completion]:
        return completions_of(_litellm().completion(**self._given(request)))

    async def _acreate(self, request: dict[str, Any]) -> list[Completion]:
        return completions_of(await _litellm().acompletion(**self._given(request)))

    def _given(self, request: dict[str, Any]) -> dict[str, Any]:
        given = {k: v for k, v in self._settings.items() if v is not None}
        # caching off: equal requests are different samples here
        return {"model": self.name, "caching": False, **given, **request}

    def _explained(self, error: Exception) -> Exception:
        if "LLM Provider NOT provided" in str(error):
            return InvalidInputError(
                f"model {self.name!r} names no provider; write provider/model, such as openai/{self.name}"
            )
        return super()._explained(error)


def _litellm() -> Any:
    import litellm

    litellm.suppress_debug_info = True  # else it prints advice to standard output at every error
    return litellm


def _signed(api_base: str, headers: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the settings for a URL with user and password: as a header, since litellm's async client refuses both."""
    user, at, _ = urlsplit(api_base).netloc.rpartition("@")
    if not at:
        return {}
    name, _, password = (unquote(part) for part in user.partition(":"))
    sign = base64.b64encode(f"{name}:{password}".encode()).decode()
    bare = api_base.replace(f"{user}@", "", 1)
    return {"api_base": bare, "extra_headers": {"Authorization": f"Basic {sign}", **(headers or {})}}
