"""Models without a system role: found out from their refusal, for them alone, and never from an error that passes."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import SystemMessage
from langchain_core.runnables import ConfigurableField

from tpo_langchain import RunnableTPO
from tpo_langchain.system_role import may_refuse_system

REFUSALS = [
    "System role not supported",
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "Error rendering prompt with jinja template: Only user and assistant roles are supported!",
    "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    "This model doesn't support system messages. Try again without a system message.",
    "Developer instruction is not enabled for models/gemma-3-27b-it",
]
OTHERS = [
    "Internal system error",
    "read-only file system",
    "the system is overloaded, try again",
    "Error code: 503 - no healthy upstream in system",
    "the operating system does not support this",
]


class Refusal(Exception):
    """What a client raises."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status


def longest(prompt: Any, response: str) -> float:
    return len(response)


def words(messages: Any, number: int) -> str:
    asked = messages[-1].text
    told = {"lower. Compare": "a critique", "Turn it into": "instructions", "Rewrite": "an updated answer"}
    return next((said for word, said in told.items() if word in asked), "sample ") + "x" * number


def with_system(chat: Any) -> list[bool]:
    return [isinstance(m[0], SystemMessage) for m in chat.log.messages]


@pytest.mark.parametrize("message", REFUSALS)
@pytest.mark.parametrize("status", [400, 500, None])
def test_a_refusal_is_known_by_its_words(chat: Any, message: str, status: int | None) -> None:
    def answer(messages: Any, number: int) -> str:
        if isinstance(messages[0], SystemMessage):
            raise Refusal(message, status)
        return words(messages, number)

    model = chat(answer=answer)
    refined = RunnableTPO(model, reward=longest, width=2, depth=1, return_trajectory=True)
    first = refined.invoke("how?")
    assert first.best.step == 1 and first.steps[0].loss.startswith("a critique")
    asked = with_system(model).count(True)
    assert asked <= 4  # the critic's first, and those of the editor that went out at once
    second = refined.invoke("how?")
    assert second.best.step == 1 and with_system(model).count(True) == asked


@pytest.mark.parametrize("message", OTHERS)
@pytest.mark.parametrize("status", [500, 503, None])
def test_another_error_with_the_word_in_it_is_no_refusal(chat: Any, message: str, status: int | None) -> None:
    def answer(messages: Any, number: int) -> str:
        if number == 2:
            raise Refusal(message, status)
        return words(messages, number)

    model = chat(answer=answer)
    refined = RunnableTPO(model, reward=longest, width=2, depth=1)
    refined.invoke("how?")
    refined.invoke("how?")
    assert with_system(model) == [False, False, True, *[True] * 4, False, False, *[True] * 4]


def test_an_error_that_passes_and_speaks_of_system_messages_teaches_nothing(chat: Any) -> None:
    def answer(messages: Any, number: int) -> str:
        if number in (2, 3):
            raise Refusal("system messages are not supported while the server starts")
        return words(messages, number)

    model = chat(answer=answer)
    refined = RunnableTPO(model, reward=longest, width=2, depth=1)
    assert refined.invoke("how?").text.startswith("an updated answer")
    assert with_system(model)[:5] == [False, False, True, False, True]  # the second time as at first
    assert with_system(model)[5:] == [True] * 3


@pytest.mark.parametrize("status", [401, 404, 408, 429, 502, 503, 504])
def test_a_status_that_is_about_the_moment_or_the_caller_is_no_refusal(status: int) -> None:
    messages = [SystemMessage("s"), SystemMessage("u")]
    assert may_refuse_system(messages, Refusal(REFUSALS[0], 400))
    assert not may_refuse_system(messages, Refusal(REFUSALS[0], status))
    assert not may_refuse_system(messages[:1], Refusal(REFUSALS[0], 400))


async def test_what_is_learnt_of_one_model_is_not_believed_of_another(chat: Any) -> None:
    def refusing(messages: Any, number: int) -> str:
        if isinstance(messages[0], SystemMessage):
            raise Refusal("System role not supported", 400)
        return words(messages, number)

    strict, other = chat(answer=refusing), chat(answer=words)
    critic = strict.configurable_alternatives(ConfigurableField(id="critic"), default_key="strict", other=other)
    refined = RunnableTPO(chat(answer=words), critic=critic, reward=longest, width=2, depth=1)
    refined.invoke("how?")
    await refined.ainvoke("how?")
    assert with_system(strict) == [True, False, False, False, False]
    refined.invoke("how?", {"configurable": {"critic": "other"}})
    assert with_system(other) == [True, True]
    refined.invoke("how?")
    assert with_system(strict)[5:] == [False, False]
