"""What a run will ask, before it asks: requests by the plan, tokens by stated assumptions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tpo_core.config import TPOConfig
from tpo_core.prompts.rendering import show_query
from tpo_core.values import Prompt

__all__ = ["Forecast", "forecast"]

CHARACTERS = 4
"""Of a token, as English has about."""
INSTRUCTIONS = 300
"""Tokens of the engine's own words in a critique or an update."""


@dataclass(frozen=True)
class Forecast:
    """Requests are what the plan makes where nothing fails or stops early; tokens assume every answer equally long."""

    queries: int
    requests: int
    """Samples of the policy, critic and editor."""
    scored: int
    """Responses that the reward model scores."""
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Return all tokens."""
        return self.prompt_tokens + self.completion_tokens


def forecast(prompts: Iterable[Prompt], config: TPOConfig, answer: int) -> Forecast:
    """Reckon what a run will ask.

    A loss reads the query and two answers, a gradient what the loss read and the loss, an update one answer and the
    gradient; each of the three also the engine's instructions, and each is as long as an answer. The adaptive plan is
    taken to use its budget: its tokens, else the requests of the paper's plan.

    Args:
        prompts: Of the run.
        config: Of each query.
        answer: Tokens of an answer, as you expect.

    Example:
        >>> forecast(["How do bees sleep?"], TPOConfig(), 500).requests
        19
    """
    lengths = [-(-len(show_query(prompt)) // CHARACTERS) for prompt in prompts]
    queries, asked, width, rounds = len(lengths), sum(lengths), config.width, config.rounds
    shown = 1 if config.mode == "revision" else 2
    per_query = rounds * (INSTRUCTIONS * (2 + width) + shown * answer + (shown + 1) * answer + width * 2 * answer)
    questions = width + rounds * (2 + width)
    prompt_tokens = queries * per_query + asked * questions
    completion_tokens = queries * questions * answer
    scale = 1.0
    if config.plan == "adaptive" and config.max_tokens is not None:
        scale = config.max_tokens * queries / max(1.0, completion_tokens + config.prompt_price * prompt_tokens)
    elif config.max_calls is not None:
        scale = config.max_calls / questions if config.plan == "adaptive" else min(1.0, config.max_calls / questions)
    requests, scored, prompt_tokens, completion_tokens = (
        round(scale * count)
        for count in (queries * questions, queries * width * (rounds + 1), prompt_tokens, completion_tokens)
    )
    return Forecast(queries, requests, scored, prompt_tokens, completion_tokens)
