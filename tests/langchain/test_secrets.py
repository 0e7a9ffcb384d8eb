"""Keys of LangChain's models stand in no error, traceback, record or log of a refined chain, nor of the provider."""

from __future__ import annotations

import traceback
from typing import Any
from urllib.parse import quote

import litellm
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

from echo import KEY, PASSWORD, TOKEN, check_nothing_leaks, echoing, everything_said
from tpo_core import GenerationError, RewardError, TPOConfig
from tpo_core.rewards import JudgeReward
from tpo_langchain import ChatTPO, RunnableTPO
from tpo_litellm.provider import register

SIGNED = f"http://me:{quote(PASSWORD, safe='')}@"


def model_at(where: str, **settings: Any) -> ChatOpenAI:
    headers = {"X-API-Key": KEY, "X-Tier": "tier-canary"}
    given = {"api_key": KEY, "default_headers": headers, "base_url": f"http://{where}/v1", **settings}
    return ChatOpenAI(model="smol", max_retries=0, **given)


def shorter(prompt: Any, response: str) -> float:
    return -len(response)


@pytest.mark.parametrize("base", [None, f"{SIGNED}WHERE/v1", f"http://WHERE/v1?key={TOKEN}"])
async def test_a_refined_chain_leaks_nothing_of_its_models(
    base: str | None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with echoing(400) as where:
        model = model_at(where, **({"base_url": base.replace("WHERE", where)} if base else {}))
        chain = RunnableTPO(model | StrOutputParser(), reward=shorter, llm=model, mode="bon", width=2)
        with pytest.raises(GenerationError, match="you sent") as caught:
            chain.invoke("why?")
        with pytest.raises(GenerationError) as acaught:
            await chain.ainvoke("why?")
        with pytest.raises(GenerationError) as chatted:
            ChatTPO(llm=model, reward=shorter, mode="bon", width=2).invoke("why?")
    said = [everything_said(error.value) for error in (caught, acaught, chatted)]
    check_nothing_leaks(*said, caplog.text, *capfd.readouterr())


def test_an_exception_that_a_chain_returns_as_its_value_is_masked() -> None:
    with echoing(400) as where:
        model = model_at(where)

        def fall(given: Any) -> Any:
            try:
                return model.invoke(given)
            except Exception as error:
                return error

        chain = RunnableTPO(RunnableLambda(fall), reward=shorter, llm=model, mode="bon", width=2)
        with pytest.raises(GenerationError, match="you sent") as caught:
            chain.invoke("why?")
    check_nothing_leaks(everything_said(caught.value))


def test_a_langchain_judge_leaks_nothing() -> None:
    with echoing(400) as where, pytest.raises(RewardError, match="you sent") as caught:
        JudgeReward(model_at(where)).score("why?", ["a"])
    check_nothing_leaks(everything_said(caught.value))


@pytest.mark.parametrize("tools", [{}, {"tools": [{"type": "function", "function": {"name": "look"}}]}])
@pytest.mark.parametrize("base", ["http://WHERE/v1", f"{SIGNED}WHERE/v1", f"http://WHERE/v1?key={TOKEN}"])
async def test_the_litellm_provider_leaks_nothing_of_the_model_behind(
    tools: dict[str, Any], base: str, caplog: pytest.LogCaptureFixture
) -> None:
    register(shorter, TPOConfig(mode="bon", width=2))
    try:
        with echoing(400) as where:
            asked = {
                "model": "tpo/openai/smol",
                "messages": [{"role": "user", "content": "why?"}],
                "api_base": base.replace("WHERE", where),
                "api_key": KEY,
                "num_retries": 0,
                **tools,
            }
            with pytest.raises(litellm.BadRequestError) as caught:
                litellm.completion(**asked)
            with pytest.raises(Exception) as acaught:
                await litellm.acompletion(**asked)
    finally:
        litellm.custom_provider_map = []
    assert "you sent" in str(caught.value)
    # the fields of litellm's own exception hold the address that litellm was called with; its text does not
    said = ["".join(traceback.format_exception(error.value)) for error in (caught, acaught)]
    check_nothing_leaks(*said, caplog.text)
