"""From what a user names to a model: ours, a ``dspy.LM``, a LangChain chat model, a model string, or a Policy."""

from __future__ import annotations

from typing import Any, TypeAlias

from tpo_core.errors import InvalidInputError
from tpo_core.models.hosts import DSPyChat, DSPyLM, LangChainChat, LangChainModel
from tpo_core.models.litellm_chat import LiteLLMChat
from tpo_core.models.openai_chat import PREFIX, OpenAIChat
from tpo_core.models.policy import ChatModel, ChatPolicy, Policy, is_policy

__all__ = ["Answering", "as_chat", "as_policy"]

Answering: TypeAlias = "Policy | ChatModel | DSPyLM | LangChainModel | str"
"""Whatever a run takes as its policy."""


def as_chat(model: Any, *, name: str = "model") -> ChatModel:
    """Make a chat model of whatever is given as one.

    Args:
        model: A ``ChatModel``, a ``dspy.LM``, a LangChain chat model, or a model string: ``openai/...`` is asked
            through OpenAI's client, others through litellm.
        name: How the error calls the argument.

    Raises:
        InvalidInputError: It is none of these; the message names the argument.
    """
    if isinstance(model, str):
        return OpenAIChat(model) if model.startswith(PREFIX) else LiteLLMChat(model)
    if isinstance(model, ChatModel):
        return model
    if isinstance(model, LangChainModel):
        return LangChainChat(model, tag=f"tpo:{name}")
    if isinstance(model, DSPyLM):
        return DSPyChat(model)
    raise InvalidInputError(
        f"{name} must be a chat model, a dspy.LM, a LangChain chat model or a model string such as "
        f"'openai/gpt-4o-mini', not {type(model).__name__}"
    )


def as_policy(policy: Any) -> Policy:
    """Take a ``Policy`` as it is; whatever ``as_chat`` takes answers the query itself.

    Raises:
        InvalidInputError: It is none of these.
    """
    return policy if is_policy(policy) else ChatPolicy(as_chat(policy, name="policy"))
