"""Test-Time Preference Optimization as a litellm provider: ``litellm.completion(model="tpo/<a litellm model>", ...)``.

One call of ``register`` makes it known to this process; ``TPOHandler`` is what a config file of litellm's proxy names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import litellm
from litellm.llms.custom_llm import CustomLLM

from tpo_core.config import TPOConfig
from tpo_core.drivers.run import arun, run
from tpo_core.errors import InvalidInputError
from tpo_core.masking import Secrets
from tpo_core.models.litellm_chat import LiteLLMChat
from tpo_core.models.openai_format import read_usage
from tpo_core.models.policy import AfterFirst, ChatModel, ChatPolicy
from tpo_core.models.resolving import as_chat
from tpo_core.prompts.modeltext import without_reasoning
from tpo_core.rewards import as_reward
from tpo_core.trajectory import Trajectory
from tpo_core.values import Completion
from tpo_litellm.wire import acompleted, choice, chunks, completed, in_words, mapped_errors, rank

__all__ = ["TPOHandler", "register"]

PREFIX = "tpo_"
"""In front of a loop setting among a request's parameters: ``tpo_width=3``."""

_LOOP = {f.name for f in fields(TPOConfig)}
_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "seed": "seed", "max_tokens": "max_response_tokens",
             "max_completion_tokens": "max_response_tokens"}  # fmt: skip
_OF_ANSWERS_ONLY = {"tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "stop", "logprobs",
                    "top_logprobs"}  # fmt: skip


class TPOHandler(CustomLLM):  # type: ignore[misc]  # litellm's classes are not typed here
    """Answers requests for ``tpo/<model>``: samples, criticises and updates with ``<model>``, returns the best.

    Answers in words are refined; a tool call passes through, as it came. ``n`` returns the n best candidates. Requests
    may set the loop: ``tpo_width``, ``tpo_depth``, ``tpo_mode`` and every other field of ``TPOConfig``; sampling
    settings and limits of the request are those of its samples.

    Args:
        reward: What answers are aligned to; see ``as_reward``. None asks ``<model>`` itself as a judge.
        config: The loop where a request sets nothing; ``TPOConfig()`` by default.
        critic: Writes the critiques: a litellm model string or a ``ChatModel``; ``<model>`` itself by default.
        editor: Likewise the updates.
        adjustable: The loop settings that a request may set, without ``tpo_``; all of them by default. Who serves
            strangers gives a few, or none: the others decide what an answer costs.
    """

    def __init__(
        self,
        reward: Any = None,
        config: TPOConfig | None = None,
        *,
        critic: Any = None,
        editor: Any = None,
        adjustable: Collection[str] | None = None,
    ) -> None:
        """Take what serves every request."""
        super().__init__()
        self._reward = None if reward is None else as_reward(reward)
        self._config = config or TPOConfig()
        self._critic, self._editor = critic, editor
        self._adjustable = _LOOP if adjustable is None else set(adjustable)
        if unknown := sorted(self._adjustable - _LOOP):
            raise InvalidInputError(f"adjustable names {unknown[0]}, which is no setting of the loop")

    def completion(self, *args: Any, **kwargs: Any) -> Any:
        """Answer a request; see ``CustomLLM``."""
        with mapped_errors():
            job = _Job(self, kwargs)
            first = completed(job.first) if job.tools else None
            if first is not None and not in_words(first):
                return first
            return job.response(run(**job.loop(first)))

    async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
        """Answer a request without blocking."""
        with mapped_errors():
            job = _Job(self, kwargs)
            first = await acompleted(job.first) if job.tools else None
            if first is not None and not in_words(first):
                return first
            return job.response(await arun(**job.loop(first)))

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Answer in chunks; nothing is sent before the answer is final."""
        _check_one(kwargs)
        yield from chunks(self.completion(*args, **kwargs))

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Answer in chunks, without blocking."""
        _check_one(kwargs)
        for chunk in chunks(await self.acompletion(*args, **kwargs)):
            yield chunk


def register(
    reward: Any = None,
    config: TPOConfig | None = None,
    *,
    provider: str = "tpo",
    critic: Any = None,
    editor: Any = None,
    adjustable: Collection[str] | None = None,
) -> TPOHandler:
    """Make ``<provider>/<model>`` known to litellm in this process; a second call replaces the first.

    Args:
        reward: As in ``TPOHandler``; likewise the others.
        config: The loop where a request sets nothing.
        provider: The prefix of the model strings; several may be registered, each with a reward of its own.
        critic: Writes the critiques.
        editor: Writes the updates.
        adjustable: The loop settings that a request may set.

    Returns:
        The handler.
    """
    handler = TPOHandler(reward, config, critic=critic, editor=editor, adjustable=adjustable)
    others = [entry for entry in litellm.custom_provider_map if entry["provider"] != provider]
    litellm.custom_provider_map = [*others, {"provider": provider, "custom_handler": handler}]
    litellm.utils.custom_llm_setup()
    return handler


class _Job:
    """One request: what is asked of the model behind, and what the loop is told."""

    def __init__(self, handler: TPOHandler, given: Mapping[str, Any]) -> None:
        asked = dict(given.get("optional_params") or {})
        asked.pop("stream", None)
        asked.pop("stream_options", None)
        self._handler, self._shell = handler, given["model_response"]
        self.model, self.messages = given["model"], given["messages"]
        self.n = _count(asked.pop("n", None))
        self.config = _loop_config(handler._config, asked, self.n, handler._adjustable)
        self._where = {k: v for k in ("api_base", "api_key", "timeout", "headers") if (v := given.get(k))}
        self._secrets = Secrets(**self._where)
        if headers := self._where.pop("headers", None):
            self._where["extra_headers"] = headers
        self._asked = {k: v for k, v in asked.items() if not k.startswith(PREFIX) and k not in _SAMPLING}
        self.tools = bool(asked.get("tools") or asked.get("functions"))

    @property
    def first(self) -> dict[str, Any]:
        """Return the request as it came, for the model behind: its answer may be a tool call."""
        sampling = {k: v for k in ("temperature", "top_p", "seed") if (v := getattr(self.config, k)) is not None}
        limit = {"max_tokens": self.config.max_response_tokens} if self.config.max_response_tokens else {}
        return {"model": self.model, "messages": self.messages, **sampling, **limit, **self._asked, **self._where}

    def loop(self, first: Any) -> dict[str, Any]:
        """Return what the drivers take."""
        in_words = {k: v for k, v in self._asked.items() if k not in _OF_ANSWERS_ONLY}
        plain = LiteLLMChat(
            self.model, **{k: v for k, v in {**in_words, **self._where}.items() if k != "response_format"}
        )
        editor: ChatModel = LiteLLMChat(self.model, **in_words, **self._where)
        handler, model = self._handler, LiteLLMChat(self.model, **self._asked, **self._where)
        critic, editor = _chat(handler._critic, plain), _chat(handler._editor, editor)
        policy = ChatPolicy(model, critic=critic, editor=editor)
        return {
            "query": self.messages,
            "policy": policy if first is None else AfterFirst(policy, _sample(first)),
            "reward": handler._reward or _judge(plain),
            "config": self.config,
        }

    def response(self, trajectory: Trajectory) -> Any:
        """Fill litellm's response with the n best candidates."""
        best = sorted((c for c in trajectory.candidates if c.reward is not None), key=rank)[: self.n]
        response, spent = self._shell, trajectory.usage + trajectory.reward_usage
        response.model = self.model
        response.choices = [choice(place, candidate, trajectory) for place, candidate in enumerate(best)]
        response.usage = litellm.Usage(
            prompt_tokens=spent.prompt_tokens, completion_tokens=spent.completion_tokens, total_tokens=spent.tokens
        )
        return response


def _sample(response: Any) -> Completion:
    """Return the first answer as a sample."""
    answer = response.choices[0]
    text = without_reasoning(answer.message.content or "")
    return Completion(text, None, answer.finish_reason, read_usage(response))


def _loop_config(base: TPOConfig, asked: Mapping[str, Any], n: int, adjustable: Collection[str]) -> TPOConfig:
    """Return the loop of one request: its own settings over the handler's, at least n candidates wide."""
    loop = {k.removeprefix(PREFIX): v for k, v in asked.items() if k.startswith(PREFIX)}
    if unknown := sorted(set(loop) - set(adjustable)):
        raise InvalidInputError(
            f"tpo_{unknown[0]} cannot be set by a request; these can: {', '.join(sorted(adjustable)) or 'none'}"
        )
    sampling = {own: asked[name] for name, own in _SAMPLING.items() if asked.get(name) is not None}
    config = replace(base, **{**sampling, **loop})
    if n > config.width and "width" not in adjustable:
        raise InvalidInputError(f"n must be at most {config.width} here, not {n}")
    return config if config.width >= n else replace(config, width=n)


def _count(n: Any) -> int:
    if n is None:
        return 1
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InvalidInputError(f"n must be an integer of at least 1, not {n!r:.80}")
    return n


def _check_one(given: Mapping[str, Any]) -> None:
    with mapped_errors():
        if _count((given.get("optional_params") or {}).get("n")) > 1:
            raise InvalidInputError("n must be 1 with stream=True: litellm streams one choice of a custom provider")


def _chat(model: Any, own: ChatModel) -> ChatModel:
    return own if model is None else LiteLLMChat(model) if isinstance(model, str) else as_chat(model, name="model")


def _judge(chat: ChatModel) -> Any:
    from tpo_core.rewards import JudgeReward

    return JudgeReward(chat)
