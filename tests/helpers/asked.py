"""What is made once, used, and taken into other processes: each asks a server for an answer to a query."""

from __future__ import annotations

from typing import Any

from tpo_core import ChatPolicy, OpenAIChat, TPOConfig, arun, run
from tpo_core.rewards import FunctionReward, JudgeReward

__all__ = ["Chain", "Engine", "Judged", "Program", "checksum"]

CONFIG = TPOConfig(mode="bon", width=2)
TIMEOUT = 20.0


def checksum(prompt: Any, response: str) -> float:
    """Score a response."""
    return float(sum(map(ord, response)) % 101)


class Engine:
    """``run`` and ``arun`` with one policy and one reward."""

    def __init__(self, url: str) -> None:
        self.policy = ChatPolicy(OpenAIChat("smol", api_base=url, timeout=TIMEOUT))
        self.reward: Any = FunctionReward(checksum)

    def ask(self, query: str) -> str:
        return run(query, self.policy, self.reward, CONFIG).best.response

    async def aask(self, query: str) -> str:
        return (await arun(query, self.policy, self.reward, CONFIG)).best.response


class Judged(Engine):
    """The same with a judge, which awaits in a thread of its own."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reward = JudgeReward(OpenAIChat("smol", api_base=url, timeout=TIMEOUT), logprobs="never")


class Chain:
    """One chain of LangChain's."""

    def __init__(self, url: str) -> None:
        from langchain_core.output_parsers import StrOutputParser
        from langchain_openai import ChatOpenAI

        from tpo_langchain import RunnableTPO

        model = ChatOpenAI(model="smol", base_url=url, api_key="none", timeout=TIMEOUT)
        self.chain: Any = RunnableTPO(model | StrOutputParser(), reward=checksum, llm=model, config=CONFIG)

    def ask(self, query: str) -> str:
        answer: str = self.chain.invoke(query)
        return answer

    async def aask(self, query: str) -> str:
        answer: str = await self.chain.ainvoke(query)
        return answer


class Program:
    """One program of DSPy's."""

    def __init__(self, url: str) -> None:
        import dspy

        from tpo_dspy import TPO

        self.lm = dspy.LM("openai/smol", api_base=url, api_key="none", cache=False, timeout=TIMEOUT)
        self.program: Any = TPO(dspy.Predict("question -> answer"), checksum, config=CONFIG)

    def ask(self, query: str) -> str:
        import dspy

        with dspy.context(lm=self.lm):
            answer: str = self.program(question=query).answer
        return answer

    async def aask(self, query: str) -> str:
        import dspy

        with dspy.context(lm=self.lm):
            answer: str = (await self.program.acall(question=query)).answer
        return answer
