"""What spans say: OpenTelemetry's names for generative AI where there are some, ours begin with ``tpo.``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from tpo_core.config import TPOConfig
from tpo_core.drivers.tracing import outcome
from tpo_core.errors import InvalidInputError
from tpo_core.loop.effects import Generate, Progress
from tpo_core.masking import hide
from tpo_core.models.openai_chat import OpenAIChat
from tpo_core.models.policy import Policy
from tpo_core.prompts.rendering import as_messages, render
from tpo_core.trajectory import Trajectory
from tpo_core.values import Candidate, Completion, Prompt, Reward, Usage

__all__ = [
    "MODEL", "of_completions", "of_config", "of_each_reward", "of_prompt", "of_query", "of_request", "of_rewards",
    "of_round", "of_trajectory",
]  # fmt: skip

Attributes: TypeAlias = "dict[str, Any]"

MODEL = "gen_ai.request.model"
_PROVIDERS = {
    "anthropic": "anthropic", "azure": "azure.ai.openai", "azure_ai": "azure.ai.inference", "bedrock": "aws.bedrock",
    "cohere": "cohere", "deepseek": "deepseek", "gemini": "gcp.gemini", "groq": "groq", "mistral": "mistral_ai",
    "openai": "openai", "perplexity": "perplexity", "vertex_ai": "gcp.vertex_ai", "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}  # fmt: skip
"""What litellm's prefixes are called in ``gen_ai.provider.name``."""
_INPUT, _OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"


def of_config(config: TPOConfig, place: int) -> Attributes:
    """Return what a query begins with."""
    return {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "tpo",
        "tpo.mode": config.mode,
        "tpo.plan": config.plan,
        "tpo.width": config.width,
        "tpo.depth": config.depth,
        "tpo.place": place,
    }


def of_query(query: Prompt) -> Attributes:
    """Return the text of a query."""
    return {_INPUT: _written(as_messages(query))}


def of_request(policy: Policy, request: Generate, seeds: Sequence[int]) -> Attributes:
    """Return what a call of the policy asks for, and of which model where the engine itself asks one."""
    provider, model = _of_model(getattr(policy, "models", {}).get(request.task))
    told = {
        "tpo.task": request.task,
        "tpo.step": request.step,
        "gen_ai.operation.name": None if model is None else "chat",
        "gen_ai.provider.name": provider,
        MODEL: model,
        "gen_ai.request.choice.count": len(seeds) if len(seeds) != 1 else None,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.seed": seeds[0] if request.send_seed else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _of_model(model: Any) -> tuple[str | None, str | None]:
    """Return the provider, where the conventions know it, and the name of a model such as ``openai/gpt-4o-mini``."""
    name = getattr(model, "name", None)
    if not isinstance(name, str):
        return None, None
    prefix, _, rest = name.partition("/")
    if rest and prefix in _PROVIDERS:
        return _PROVIDERS[prefix], rest
    return ("openai" if isinstance(model, OpenAIChat) else None), name  # as the conventions have compatible servers


def of_prompt(request: Generate) -> Attributes:
    """Return the text of a request: of a sample what the user's program is given, as text."""
    if request.signature is not None:
        return {_INPUT: _written(render(request.signature, request.inputs))}
    try:
        messages = as_messages(request.inputs)
    except (InvalidInputError, TypeError, ValueError):  # a program takes what it likes
        messages = [{"role": "user", "content": str(request.inputs)}]
    return {_INPUT: _written(messages)}


def of_completions(completions: Sequence[Completion], texts: bool) -> Attributes:
    """Return what a call of the policy brought."""
    told: Attributes = of_usage(Usage.total(c.usage for c in completions))
    if reasons := [c.finish_reason for c in completions if c.finish_reason]:
        told["gen_ai.response.finish_reasons"] = reasons
    if failures := [c.failure.reason for c in completions if c.failure is not None]:
        told["tpo.failures"] = failures
    if texts:
        told[_OUTPUT] = _written([{"role": "assistant", "content": c.text} for c in completions])
    return told


def of_usage(usage: Usage) -> Attributes:
    """Return tokens, where some are reported."""
    told = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
    }
    return {name: count for name, count in told.items() if count}


def of_rewards(rewards: Sequence[Reward]) -> Attributes:
    """Return what a scoring brought; rewards that are not finite are counted alone."""
    finite = [float(reward) for reward in rewards if math.isfinite(reward)]
    told: Attributes = {"tpo.rewards": finite, **of_usage(Usage.total(getattr(r, "usage", Usage()) for r in rewards))}
    return told if len(finite) == len(rewards) else {**told, "tpo.unscored": len(rewards) - len(finite)}


def of_each_reward(name: str, rewards: Sequence[Reward], texts: bool) -> Iterator[Attributes]:
    """Yield an evaluation's attributes for each reward that is finite."""
    for reward in rewards:
        if math.isfinite(reward):
            told = {"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": float(reward)}
            remark = getattr(reward, "feedback", None)
            yield {**told, "gen_ai.evaluation.explanation": hide(remark)} if texts and remark else told


def of_round(progress: Progress) -> Attributes:
    """Return what a round came to."""
    told: Attributes = {
        "tpo.candidates": len(progress.candidates),
        "tpo.rewards": [c.reward for c in progress.candidates if c.reward is not None],
    }
    if failures := [c.failure.reason for c in progress.candidates if c.failure is not None]:
        told["tpo.failures"] = failures
    return told | _of_best("tpo.reward", progress.best)


def of_trajectory(trajectory: Trajectory, texts: bool) -> Attributes:
    """Return what a query came to."""
    best, usage = trajectory.best_or_none, trajectory.usage
    told: Attributes = {
        "tpo.candidates": len(trajectory.candidates),
        "tpo.requests": usage.requests,
        "tpo.usage.estimated": usage.estimated,
        **outcome(trajectory),
    }
    if failures := [c.failure.reason for c in trajectory.failures if c.failure is not None]:
        told["tpo.failures"] = failures
    if best is None:
        return told
    told["tpo.best.step"] = best.step
    if best.index in trajectory.gold:
        told["tpo.gold_reward"] = trajectory.gold[best.index]
    if texts:
        told[_OUTPUT] = _written([{"role": "assistant", "content": best.response}])
    return told


def _of_best(name: str, best: Candidate | None) -> Attributes:
    return {} if best is None or best.reward is None else {name: best.reward}


def _written(messages: Sequence[Mapping[str, Any]]) -> str:
    """Write messages as the conventions have them: a role and parts each, as JSON."""
    written = [
        {"role": message["role"], "parts": [{"type": "text", "content": hide(_text(message))}]} for message in messages
    ]
    return json.dumps(written, ensure_ascii=False)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
