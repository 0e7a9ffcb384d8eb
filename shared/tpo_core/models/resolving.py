"""From what a user names to a model: a ChatModel, a Policy or a model string."""

from __future__ import annotations

from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.models.litellm_chat import LiteLLMChat
from tpo_core.models.openai_chat import PREFIX, OpenAIChat
from tpo_core.models.policy import ChatModel, ChatPolicy, Policy

__all__ = [
    "as_chat",
    "as_policy",
]


def as_chat(model: Any, *, name: str = "model") -> ChatModel:
    """Take a ``ChatModel`` as it is, and a string as a model: ``openai/...`` on OpenAI's client, others on litellm's.

    Raises:
        InvalidInputError: It is neither; the message names the argument.
    """
    if isinstance(model, str):
        return OpenAIChat(model) if model.startswith(PREFIX) else LiteLLMChat(model)
    if isinstance(model, ChatModel):
        return model
    raise InvalidInputError(
        f"{name} must be a ChatModel or a model string such as 'openai/gpt-4o-mini', not {type(model).__name__}"
    )


def as_policy(policy: Any) -> Policy:
    """Take a ``Policy`` as it is; a ``ChatModel`` or a litellm model string answers the query itself.

    Raises:
        InvalidInputError: It is none of these.
    """
    return policy if isinstance(policy, Policy) else ChatPolicy(as_chat(policy, name="policy"))
