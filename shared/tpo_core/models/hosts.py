"""Any language model as a ``ChatModel``: one of ours, a ``dspy.LM``, a LangChain chat model, a LiteLLM model string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tpo_core.cache_keys import made_of
from tpo_core.errors import InvalidInputError
from tpo_core.masking import Secrets
from tpo_core.models import resolving
from tpo_core.models.openai_format import read_logprobs
from tpo_core.models.policy import ChatModel
from tpo_core.values import Completion, Message, Usage

__all__ = ["DSPyChat", "LangChainChat", "as_chat", "chat_key"]


def as_chat(lm: Any) -> ChatModel:
    """Make a chat model of whatever was given as one.

    Raises:
        InvalidInputError: It is none of the kinds above.
    """
    if isinstance(lm, (str, ChatModel)):
        return resolving.as_chat(lm, name="lm")
    if hasattr(lm, "invoke") and hasattr(lm, "bind"):
        return LangChainChat(lm)
    if callable(lm) and hasattr(lm, "acall") and hasattr(lm, "model"):
        return DSPyChat(lm)
    raise InvalidInputError(
        f"lm must be a chat model, a dspy.LM, a LangChain chat model or a model name, not {type(lm).__name__}"
    )


def chat_key(model: Any) -> str | None:
    """Return what a chat model is known by, whose ``cache_key`` it is to have; None where it has none."""
    key = getattr(model, "cache_key", None)
    return key if isinstance(key, str) else None


class DSPyChat:
    """A ``dspy.LM`` behind the ``ChatModel`` protocol; its calls are counted and traced by DSPy."""

    takes_n: bool | None = False

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

    def chat(self, messages: Sequence[Message], **options: Any) -> list[Completion]:
        """Return one completion; see ``ChatModel.chat``."""
        return [self._read(self.lm(self._request(messages, options)))]

    async def achat(self, messages: Sequence[Message], **options: Any) -> list[Completion]:
        """Return one completion without blocking."""
        return [self._read(await self.lm.acall(self._request(messages, options)))]

    def _request(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Any:
        from dspy import lm15

        system = "\n\n".join(str(m["content"]) for m in messages if m["role"] == "system")
        turns = [getattr(lm15.Message, str(m["role"]))(m["content"]) for m in messages if m["role"] != "system"]
        config = lm15.Config(**_given(options), logprobs=options.get("logprobs") or None)
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

    def __init__(self, model: Any) -> None:
        self.model = model
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
        return [self._read(self._bound(options).invoke(list(messages), _QUIET))]

    async def achat(self, messages: Sequence[Message], **options: Any) -> list[Completion]:
        """Return one completion without blocking."""
        return [self._read(await self._bound(options).ainvoke(list(messages), _QUIET))]

    def _bound(self, options: Mapping[str, Any]) -> Any:
        given = _given(options)
        if options.get("logprobs"):
            given |= {"logprobs": True, "top_logprobs": options["logprobs"]}
        return self.model.bind(**given) if given else self.model

    def _read(self, message: Any) -> Completion:
        used = getattr(message, "usage_metadata", None) or {}
        meta = getattr(message, "response_metadata", None) or {}
        cached = (used.get("input_token_details") or {}).get("cache_read") or 0
        content = getattr(message, "text", None) if not isinstance(message, str) else message
        return Completion(
            text=str(content() if callable(content) and not isinstance(content, str) else content or ""),
            value=message,
            finish_reason=meta.get("finish_reason"),
            usage=Usage(1, 1, used.get("input_tokens", 0), used.get("output_tokens", 0), cached),
            logprobs=read_logprobs(meta.get("logprobs")),
        )


# A judge's tokens are nobody's answer: LangGraph streams the tokens of every model run that is not tagged so.
_QUIET = {"tags": ["nostream", "tpo:judge"]}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    taken = ("temperature", "top_p", "max_tokens", "seed")
    return {k: options[k] for k in taken if options.get(k) is not None}
