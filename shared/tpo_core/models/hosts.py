"""The hosts' language models as a ``ChatModel``: a ``dspy.LM``, a LangChain chat model. Neither host is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tpo_core.cache_keys import made_of
from tpo_core.errors import ModelError
from tpo_core.masking import Secrets
from tpo_core.models.openai_format import read_finish_reason, read_logprobs
from tpo_core.values import Completion, Message, Usage

__all__ = ["DSPyChat", "DSPyLM", "LangChainChat", "LangChainModel", "chat_key"]


@runtime_checkable
class DSPyLM(Protocol):
    """A ``dspy.LM``, or what is called as one."""

    model: str

    def __call__(self, prompt: Any = None, **kwargs: Any) -> Any:
        """Answer a request."""

    async def acall(self, prompt: Any = None, **kwargs: Any) -> Any:
        """Answer a request without blocking."""


@runtime_checkable
class LangChainModel(Protocol):
    """A LangChain chat model, or one with settings, retries or fallbacks around it."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Answer messages."""

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Answer messages without blocking."""

    def bind(self, **kwargs: Any) -> Any:
        """Return the model with settings bound to it."""


def chat_key(model: Any) -> str | None:
    """Return what a chat model is known by, whose ``cache_key`` it is to have; None where it has none."""
    key = getattr(model, "cache_key", None)
    return key if isinstance(key, str) else None


_BY_KEY_ALONE = frozenset({"openai", "anthropic", "gemini", "groq", "mistral", "deepseek", "openrouter", "fireworks"})
"""Providers that nobody reaches without a key of their own; others may have a login that is stored elsewhere."""


class DSPyChat:
    """A ``dspy.LM`` behind the ``ChatModel`` protocol; its calls are counted and traced by DSPy."""

    takes_n: bool | None = False
    takes_salt = True
    """Whether ``chat`` takes a ``salt``: what differs in nothing else is then no one entry of the host's cache."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm
        self.name = str(lm.model)
        self._secrets = Secrets(**getattr(lm, "kwargs", {}))

    @property
    def cache_key(self) -> str | None:
        """Return what DSPy would save of it, which holds no key."""
        try:
            return made_of("dspy", state=self.lm.dump_state())
        except Exception:  # noqa: BLE001 - an engine of the user's that cannot be saved, in words of its own
            return None

    def check(self) -> None:
        """Find out whether the provider's key is there, where DSPy's own resolution can tell; nothing is asked.

        Raises:
            ModelError: It is missing.
        """
        if not isinstance(getattr(self.lm, "engine", None), str):  # a client of the user's, or no LM of DSPy's
            return
        provider = self.name.partition("/")[0]
        if provider not in _BY_KEY_ALONE:
            return
        own = getattr(self.lm, "kwargs", {})
        given = any(own.get(name) for name in ("api_key", "api_base", "base_url", "headers", "extra_headers"))
        if given or any(name.startswith(f"{provider.upper()}_") for name in os.environ):
            return
        from dspy import lm15

        with lm15.LMRouter(lm15.RouterConfig(env=os.environ)) as router:
            try:
                router.lm(self.name.replace("/", ":", 1))
            except lm15.NotConfiguredError as error:
                wanted = " or ".join(getattr(error, "env_keys", None) or ["its key"])
                raise ModelError(f"{self.name} needs a key: set {wanted}, or give api_key=") from error
            except Exception:  # noqa: BLE001 - a provider that DSPy leaves to litellm, or has not heard of
                return

    def chat(self, messages: Sequence[Message], **options: Any) -> list[Completion]:
        """Return one completion; see ``ChatModel.chat``."""
        return [self._read(self.lm(self._request(messages, options), **_salt(options)))]

    async def achat(self, messages: Sequence[Message], **options: Any) -> list[Completion]:
        """Return one completion without blocking."""
        return [self._read(await self.lm.acall(self._request(messages, options), **_salt(options)))]

    def _request(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Any:
        from dspy import lm15

        system = "\n\n".join(str(m["content"]) for m in messages if m["role"] == "system")
        turns = [getattr(lm15.Message, str(m["role"]))(m["content"]) for m in messages if m["role"] != "system"]
        own = dict(getattr(self.lm, "kwargs", {}))  # a request in full takes none of them by itself
        own["max_tokens"] = own.get("max_tokens") or own.get("max_completion_tokens")
        config = lm15.Config(**(_given(own) | _given(options)), logprobs=options.get("logprobs") or None)
        return lm15.Request(model=self.lm.model, messages=tuple(turns), system=system or None, config=config)

    def _read(self, response: Any) -> Completion:
        usage = response.usage
        return Completion(
            text=response.text or "",
            value=response,
            finish_reason=str(response.finish_reason),
            usage=Usage(1, 1, usage.input_tokens or 0, usage.output_tokens or 0, usage.cache_read_tokens or 0),
            logprobs=tuple(
                {t.token: t.logprob, **{top.token: top.logprob for top in t.top}} for t in response.logprobs or ()
            ),
        )


class LangChainChat:
    """A LangChain chat model behind the ``ChatModel`` protocol; its runs are children of the run that is under way."""

    takes_n: bool | None = False
    takes_salt = True
    """See ``DSPyChat``."""

    def __init__(self, model: Any, tag: str = "tpo:chat") -> None:
        self.model = model
        # What LangGraph streams to a user is the answer: it leaves out the tokens of a model run that is tagged so.
        self._config = {"tags": ["nostream", tag]}
        name = getattr(model, "model_name", None) or getattr(model, "model", None)
        self.name = name if isinstance(name, str) else type(model).__name__
        self._secrets = Secrets(**getattr(model, "__dict__", {}))

    @property
    def cache_key(self) -> str | None:
        """Return what LangChain's own caches know it by; None for what stands around a model."""
        known = hasattr(type(self.model), "_get_llm_string")
        return made_of("langchain", llm=self.model._get_llm_string()) if known else None

    def chat(self, messages: Sequence[Message], **options: Any) -> list[Completion]:
        """Return one completion; see ``ChatModel.chat``."""
        return [self._read(self._bound(options).invoke(list(messages), self._config))]

    async def achat(self, messages: Sequence[Message], **options: Any) -> list[Completion]:
        """Return one completion without blocking."""
        return [self._read(await self._bound(options).ainvoke(list(messages), self._config))]

    def _bound(self, options: Mapping[str, Any]) -> Any:
        given = _given(options)
        if options.get("logprobs"):
            given |= {"logprobs": True, "top_logprobs": options["logprobs"]}
        model = self.model if options.get("salt") is None else _uncached(self.model)
        return model.bind(**given) if given else model

    def _read(self, message: Any) -> Completion:
        used = getattr(message, "usage_metadata", None) or {}
        meta = getattr(message, "response_metadata", None) or {}
        cached = (used.get("input_token_details") or {}).get("cache_read") or 0
        content = getattr(message, "text", None) if not isinstance(message, str) else message
        return Completion(
            text=str(content() if callable(content) and not isinstance(content, str) else content or ""),
            value=message,
            finish_reason=read_finish_reason(meta),
            usage=Usage(1, 1, used.get("input_tokens", 0), used.get("output_tokens", 0), cached),
            logprobs=read_logprobs(meta.get("logprobs")),
        )


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    taken = ("temperature", "top_p", "max_tokens", "seed")
    return {k: options[k] for k in taken if options.get(k) is not None}


def _salt(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return DSPy's name for what keeps equal requests apart in its cache."""
    return {} if options.get("salt") is None else {"rollout_id": options["salt"]}


def _uncached(model: Any) -> Any:
    """Return a LangChain model past LangChain's cache, where equal requests would be one sample."""
    fields = getattr(type(model), "model_fields", {})
    if "bound" in fields:
        return model.model_copy(update={"bound": _uncached(model.bound)})
    return model.model_copy(update={"cache": False}) if "cache" in fields else model
