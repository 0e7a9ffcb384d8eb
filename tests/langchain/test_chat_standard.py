"""langchain-tests' standard suites for chat models, run on ChatTPO over a real server.

What they do not run here, and why:

- the standard constructor arguments (temperature, timeout, ...): they are set on the model behind;
- ``init_from_env``: it reads no environment;
- image, audio, video, PDF and Anthropic-style inputs: the server reads text;
- VCR cassettes: there is no recorded traffic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from loopback_answers import DefaultAnswers

from loopback import LoopbackServer
from tpo_langchain import ChatTPO

VALUES = {"string": "text", "integer": 3, "number": 3, "boolean": True, "array": [], "object": {}}


class Answers(DefaultAnswers):
    """Calls the first tool it is given, once a turn; answers in words otherwise."""

    def __call__(self, request: dict[str, Any], number: int) -> Any:
        tools, last = request.get("tools"), request["messages"][-1]
        if not tools or last["role"] == "tool":
            return super().__call__(request, number)
        function = tools[0]["function"]
        fields = function.get("parameters", {}).get("properties", {})
        values = {name: self._value(name, field) for name, field in fields.items()}
        return {"tool_calls": [{"id": f"call_{number}", "name": function["name"], "arguments": json.dumps(values)}]}

    def _value(self, name: str, field: dict[str, Any]) -> Any:
        if "enum" in field:
            return field["enum"][0]
        return "こんにちは 你好" if "customer" in name else VALUES[field.get("type", "string")]


# One a test: langchain-openai keeps a client for each address, and each test has an event loop of its own
@pytest.fixture(autouse=True)
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(Answers()) as running:
        TestChatTPO.url = TestChatTPOStandardUnit.url = running.url
        yield running


class Shared:
    url = "http://127.0.0.1:1/v1"

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatTPO

    @property
    def chat_model_params(self) -> dict[str, Any]:
        llm = ChatOpenAI(model="smol", base_url=self.url, api_key="none", stream_usage=True)
        return {"llm": llm, "reward": lambda prompt, response: len(response), "width": 2, "depth": 1}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {}

    @property
    def supports_json_mode(self) -> bool:
        return False

    @property
    def model_override_value(self) -> str:
        return "smol-2"


class TestChatTPOStandardUnit(Shared, ChatModelUnitTests):
    """The unit suite."""


class TestChatTPO(Shared, ChatModelIntegrationTests):
    """The integration suite."""
