"""One set of defaults, whichever way the loop is started; only LangChain's models keep the temperature they have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from environment import forget_models
from langchain_core.language_models import FakeListChatModel

import tpo_dspy
from loopback import LoopbackServer
from tpo_core import LiteLLMChat, TPOConfig, run
from tpo_core.cli.main import main
from tpo_langchain import ChatTPO, RunnableTPO, TPOMiddleware


def shorter(prompt: Any, response: str) -> float:
    return -len(response)


def test_the_faces_have_the_engine_s_defaults_but_for_the_temperature_of_langchain_s_models() -> None:
    assert tpo_dspy.TPO(dspy.Predict("question -> answer"), shorter).config == TPOConfig()
    model = FakeListChatModel(responses=["a"])
    for face in (RunnableTPO(model, reward=shorter), ChatTPO(llm=model, reward=shorter)):
        assert face.loop_config() == replace(TPOConfig(), temperature=None)


def test_the_paper_s_settings_can_be_given_to_each_face() -> None:
    paper, model = TPOConfig.paper(), FakeListChatModel(responses=["a"])
    assert tpo_dspy.TPO(dspy.Predict("question -> answer"), shorter, config=paper).config == paper
    assert RunnableTPO(model, reward=shorter, config=paper).loop_config() == paper
    assert ChatTPO(llm=model, reward=shorter, config=paper).loop_config() == paper
    assert TPOMiddleware(reward=shorter, config=paper)


def test_the_command_sends_what_the_engine_sends(
    loopback: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def shorter(prompt, response):\n    return -len(response)\n")
    server: LoopbackServer = loopback()
    forget_models(monkeypatch)
    monkeypatch.setenv("TPO_API_BASE", server.url)
    assert main(["ask", "why?", "--mode", "bon", "--reward", f"{tmp_path / 'mine.py'}:shorter"]) == 0
    asked = server.requests[0]
    server.clear()
    run("why?", LiteLLMChat("openai/smol", api_base=server.url), shorter, TPOConfig(mode="bon"))
    names = ("temperature", "top_p", "max_tokens", "seed", "n")
    assert [asked.get(n) for n in names] == [server.requests[0].get(n) for n in names] == [0.7, None, None, None, 5]
