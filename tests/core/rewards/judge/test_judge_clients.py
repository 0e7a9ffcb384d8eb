"""The same judge through the real clients (litellm, DSPy, LangChain) of an OpenAI-compatible server on loopback."""

import dspy
import pytest
from langchain_openai import ChatOpenAI

from loopback import LoopbackServer
from tpo_core.errors import UnsupportedError
from tpo_core.models.litellm_chat import LiteLLMChat
from tpo_core.rewards import JudgeReward

CLIENTS = {
    "litellm": lambda url: LiteLLMChat("openai/judge", api_base=url),
    "dspy": lambda url: dspy.LM("openai/judge", api_base=url, api_key="none", cache=False),
    "langchain": lambda url: ChatOpenAI(model="judge", base_url=url, api_key="none"),
}


def weighs(request, number):
    good = "Paris" in request["messages"][-1]["content"]
    return {"content": "Yes", "logprobs": [{"Yes": -0.1, "No": -2.1} if good else {"No": -0.1, "Yes": -2.1}]}


@pytest.mark.parametrize("client", CLIENTS)
async def test_log_odds_come_through_every_client(client):
    with LoopbackServer(answer=weighs) as server:
        judge = JudgeReward(CLIENTS[client](server.url))
        for rewards in (judge.score("q", ["Paris", "Rome"]), await judge.ascore("q", ["Paris", "Rome"])):
            assert rewards == pytest.approx([2.0, -2.0])
            assert rewards[0].usage.calls == 1 and rewards[0].usage.prompt_tokens > 0
        sent = server.requests[0]
        assert (sent["temperature"], sent["top_logprobs"]) == (0.0, 20)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_refuses_log_probabilities_gets_its_grades_parsed_or_is_refused(client):
    def refuses(request, number):
        if request.get("logprobs"):
            return 400, {"error": {"message": "logprobs are not supported", "type": "invalid_request_error"}}
        return "Grade: 8"

    with LoopbackServer(answer=refuses) as server:
        assert JudgeReward(CLIENTS[client](server.url)).score("q", ["Paris"]) == [8.0]
        with pytest.raises(UnsupportedError, match="log-probabilities"):
            JudgeReward(CLIENTS[client](server.url), logprobs="require").score("q", ["Paris"])
