"""An update that becomes data is told in which format to write."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from tpo_langchain import RunnableTPO


class Answer(BaseModel):
    text: str


def script(messages: Any, number: int) -> str:
    return f'{{"text": "{"x" * number}"}}'


def parsed(model: Any) -> Any:
    return RunnableLambda(lambda asked: Answer.model_validate_json(model.invoke(asked).text))


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (lambda m: m | JsonOutputParser(), "JSON object"),
        (lambda m: m | PydanticOutputParser(pydantic_object=Answer), '"text"'),
        (parsed, "fits this schema"),
        (lambda m: parsed(m) | (lambda answer: answer.model_dump()), "a JSON object with the keys text"),
    ],
)
def test_the_update_prompt_says_the_format(chat: Any, chain: Any, words: str) -> None:
    model = chat(answer=script)
    refined = RunnableTPO(
        chain(model), lambda prompt, response: len(response), llm=model, width=2, depth=1, return_trajectory=True
    )
    assert not refined.invoke("why?").failures
    updates = [messages for messages in model.log.messages if "Rewrite" in messages[-1].text]
    assert updates and all("The response is data." in m[-1].text and words in m[-1].text for m in updates)


def test_an_update_that_stays_text_is_told_nothing(chat: Any) -> None:
    model = chat(answer=script)
    RunnableTPO(model | StrOutputParser(), lambda prompt, response: len(response), width=2, depth=1).invoke("why?")
    assert not [m for messages in model.log.messages for m in messages if "The response is data." in m.text]
