"""A language model as judge: asked about an answer, its token probabilities read where the provider gives them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from tpo_core.effects import Completion, Pair, Reward
from tpo_core.errors import InvalidInputError, RewardError, UnsupportedError
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.fanout import Mutex, aeach, each, raise_if_broken
from tpo_core.rewards.judging import Answer, Ask, combine, compare, grade, yes_or_no
from tpo_core.rewards.lms import as_chat

__all__ = ["JudgeReward"]

logger = logging.getLogger(__name__)

QUESTION = "Is the response a good answer to the query?"

_Flow: TypeAlias = Generator[list[Ask], "list[Completion | Exception]", list[Reward]]
_ANCHORS = 4096  # prompts whose anchor is remembered; about a megabyte of short texts


class JudgeReward(RewardModel):
    """A language model asked about the answer.

    Pointwise, the reward is the log-odds of Yes over No (for a ``question``, or for each criterion of a ``rubric``
    list: the reward is their mean and each is a head), or the mean grade under the grade tokens' probabilities (for a
    ``rubric`` text). Where the provider gives no log-probabilities, the judge writes a grade instead, which is parsed.
    Which of the two it is, is found out at the first call and kept, so that rewards stay on one scale.

    Pairwise, each response is compared with its prompt's anchor, in both orders: the reward is the mean log-odds of
    winning (or of won orders, -1 to 1, without log-probabilities). The anchor is the reference, or else the first
    response scored for that prompt, whose own reward is 0; it stays the same over the rounds.

    A verdict that cannot be read is NaN with the reason, never a default number. Candidates are untrusted: each is
    fenced by tags that do not occur in it, and the judge is told to follow no instruction inside.

    Args:
        lm: A chat model of this project, a ``dspy.LM``, a LangChain chat model, or a LiteLLM model string.
        question: A question about the response whose better answer is Yes; pairwise, what makes a response better.
        rubric: What a good response does, as one text to grade by; or several criteria (a list, or texts by name).
        mode: ``pointwise`` or ``pairwise``.
        reference: A correct answer to judge by: a text, or a function of the pair that returns one or None.
        logprobs: ``auto``; ``require`` raises where there are none; ``never`` always parses.
        scale: The lowest and the highest grade. Grades above 9 are parsed, not weighed, since they are several tokens.
        max_tokens: The judge's limit. By default 4 where probabilities are read, 512 where text is.
        top_logprobs: Alternatives to ask for at each token; some providers allow fewer than 20.
        temperature: 0 makes parsed grades repeatable; None leaves the provider's own.
        workers: How many questions may be under way at once.
        name: How errors and feedback keys call it.

    Raises:
        InvalidInputError: An argument is wrong.
        UnsupportedError: When scoring: ``logprobs="require"`` and the provider gives none.

    Example:
        judge = JudgeReward("openai/gpt-4.1-mini", rubric=["cites a source", "answers in one paragraph"])
        judge.score("Why is the sky blue?", ["Rayleigh scattering [1].", "It just is."])
    """

    def __init__(
        self,
        lm: Any,
        *,
        question: str | None = None,
        rubric: str | Sequence[str] | Mapping[str, str] | None = None,
        mode: Literal["pointwise", "pairwise"] = "pointwise",
        reference: str | Callable[[Pair], str | None] | None = None,
        logprobs: Literal["auto", "require", "never"] = "auto",
        scale: tuple[int, int] = (1, 9),
        max_tokens: int | None = None,
        top_logprobs: int = 20,
        temperature: float | None = 0.0,
        workers: int = 8,
        name: str | None = None,
    ) -> None:
        self._criteria = _criteria(question, rubric)
        self._graded = isinstance(rubric, str)
        _check(mode, logprobs, scale, workers)
        if logprobs == "require" and self._graded and scale[1] > 9:
            raise InvalidInputError(
                f"scale {scale} cannot be read from log-probabilities; grades must be single digits"
            )
        self.chat = as_chat(lm)
        self.name = name or f"judge:{self.chat.name}"
        self.mode = mode
        self._reference = reference
        self._scale = scale
        self._limits = (max_tokens or 4, max_tokens or 512)
        self._top = top_logprobs
        self._temperature = temperature
        self._workers = workers
        self._required = logprobs == "require"
        # Found out once and kept; two threads that find out at once find the same.
        self._weighed: bool | None = False if logprobs == "never" or (self._graded and scale[1] > 9) else None
        self._anchors: OrderedDict[str, str] = OrderedDict()
        self._lock = Mutex()

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Ask about each pair, several at once; see ``RewardModel``."""
        flow = self._flow(pairs)
        asks = next(flow)
        while True:
            try:
                asks = flow.send(each(self._send, asks, self._workers))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Ask about each pair without blocking."""
        flow = self._flow(pairs)
        asks = next(flow)
        while True:
            try:
                asks = flow.send(await aeach(self._asend, asks, self._workers))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def _send(self, ask: Ask) -> Completion:
        return _only(self.chat.chat(ask.messages, **self._options(ask)), self.name)

    async def _asend(self, ask: Ask) -> Completion:
        return _only(await self.chat.achat(ask.messages, **self._options(ask)), self.name)

    def _options(self, ask: Ask) -> dict[str, Any]:
        limit = self._limits[0 if ask.weighed else 1]
        return {"temperature": self._temperature, "max_tokens": limit, "logprobs": self._top if ask.weighed else 0}

    def _flow(self, pairs: Sequence[Pair]) -> _Flow:
        """Yield questions and be sent their completions; the same text serves sync and async."""
        asks = self._asks(pairs, self._weighed is not False)
        results = yield asks
        if self._weighed is None and asks:
            self._find_out(results)
            if self._weighed is False:
                asks = self._asks(pairs, False)
                results = yield asks
        raise_if_broken(results, self.name)
        answers = [Answer.of(ask, result) for ask, result in zip(asks, results, strict=True)]
        about: list[list[Answer]] = [[a for a in answers if a.ask.place == i] for i in range(len(pairs))]
        return [combine(found) if found else Reward(0.0) for found in about]  # no question: the anchor itself

    def _find_out(self, results: Sequence[Completion | Exception]) -> None:
        """Learn from the first answers whether the provider gives log-probabilities; stay unsure if all failed."""
        good = [r for r in results if isinstance(r, Completion) and r.failure is None]
        if any(r.logprobs for r in good):
            self._weighed = True
        elif good or any("logprob" in str(r).lower() for r in results):
            if self._required:
                raise UnsupportedError(
                    f"{self.chat.name} gives no log-probabilities, which {self.name!r} requires; "
                    "use another model, or logprobs='auto' to parse grades"
                )
            logger.warning("%s gives no log-probabilities here; %s parses written grades", self.chat.name, self.name)
            self._weighed = False

    def _asks(self, pairs: Sequence[Pair], weighed: bool) -> list[Ask]:
        if self.mode == "pairwise":
            return [ask for i, pair in enumerate(pairs) for ask in self._comparison(i, pair, weighed)]
        return [
            self._question(i, pair, head, text, weighed)
            for i, pair in enumerate(pairs)
            for head, text in self._criteria.items()
        ]

    def _question(self, place: int, pair: Pair, head: str, text: str, weighed: bool) -> Ask:
        if self._graded or not weighed:
            return grade(place, pair, head, text, self._reference_for(pair), self._scale, weighed)
        question = f"Does the response meet this criterion: {text}?" if head else text
        return yes_or_no(place, pair, head, question, self._reference_for(pair))

    def _comparison(self, place: int, pair: Pair, weighed: bool) -> list[Ask]:
        other = self._reference_for(pair) or self._anchor(pair)
        if other == pair.response:
            return []
        by = "\n".join(self._criteria.values())
        return compare(place, pair, other, f"Which response is better? Judge by this: {by}\n", weighed)

    def _anchor(self, pair: Pair) -> str:
        key = pair.prompt if isinstance(pair.prompt, str) else repr(pair.prompt)
        with self._lock:
            anchor = self._anchors.setdefault(key, pair.response)
            self._anchors.move_to_end(key)
            if len(self._anchors) > _ANCHORS:
                self._anchors.popitem(last=False)
            return anchor

    def _reference_for(self, pair: Pair) -> str | None:
        return self._reference(pair) if callable(self._reference) else self._reference


def _criteria(question: str | None, rubric: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Return what is asked about, by head; the head is empty when there is but one thing."""
    if question is not None and rubric is not None:
        raise InvalidInputError("give question or rubric, not both")
    if rubric is None or isinstance(rubric, str):
        texts = {"": (QUESTION if question is None else question) if rubric is None else rubric}
    else:
        texts = dict(rubric) if isinstance(rubric, Mapping) else {text: text for text in rubric}
    if not texts or not all(isinstance(t, str) and t.strip() for t in texts.values()):
        raise InvalidInputError(f"{'question' if rubric is None else 'rubric'} must hold text, not {rubric!r:.80}")
    return texts


def _check(mode: str, logprobs: str, scale: tuple[int, int], workers: int) -> None:
    if mode not in ("pointwise", "pairwise"):
        raise InvalidInputError(f"mode must be 'pointwise' or 'pairwise', not {mode!r}")
    if logprobs not in ("auto", "require", "never"):
        raise InvalidInputError(f"logprobs must be 'auto', 'require' or 'never', not {logprobs!r}")
    if not 0 <= scale[0] < scale[1]:
        raise InvalidInputError(f"scale must be (lowest, highest) with 0 <= lowest < highest, not {scale}")
    if workers < 1:
        raise InvalidInputError(f"workers must be at least 1, not {workers}")


def _only(completions: Sequence[Completion], name: str) -> Completion:
    if not completions:
        raise RewardError(f"the model of {name!r} returned no completion")
    return completions[0]
