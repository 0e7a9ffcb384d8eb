"""A language model as judge: asked about an answer, its token probabilities read where the provider gives them."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from tpo_core.cache_keys import function_key, made_of
from tpo_core.errors import InvalidInputError, RewardError, UnsupportedError
from tpo_core.models.hosts import chat_key
from tpo_core.models.resolving import as_chat
from tpo_core.rewards.base import RewardModel, prompt_key
from tpo_core.rewards.concurrency import aeach, each, raise_if_broken
from tpo_core.rewards.judge.judging import Answer, Ask, combine, compare, grade, yes_or_no
from tpo_core.rewards.judge.limit import ConcurrencyLimit
from tpo_core.rewards.judge.prompts import PROMPTS
from tpo_core.rewards.judge.settings import check_choices, check_numbers, criteria_of
from tpo_core.threads import Mutex
from tpo_core.values import Completion, Pair, Reward, Usage

__all__ = ["JudgeReward"]

logger = logging.getLogger(__name__)

_Flow: TypeAlias = Generator[list[Ask], "list[Completion | Exception]", list[Reward]]
_ANCHORS = 2**14  # prompts whose anchor is remembered, more than a batch has in flight; some 20 MB of texts


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
        workers: How many questions may be under way at once, however many loops ask.
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
        self._criteria = criteria_of(question, rubric)
        self._graded = isinstance(rubric, str)
        check_choices(mode, logprobs, reference)
        check_numbers(scale, temperature, workers=workers, max_tokens=max_tokens, top_logprobs=top_logprobs)
        if logprobs == "require" and self._graded and scale[1] > 9:
            raise InvalidInputError(
                f"scale {scale} cannot be read from log-probabilities; grades must be single digits"
            )
        self.chat = as_chat(lm, name="lm")
        self.name = name or f"judge:{self.chat.name}"
        self.mode = mode
        self._reference = reference
        self._scale = scale
        self._limits = (max_tokens or 4, max_tokens or 512)
        self._top = top_logprobs
        self._temperature = temperature
        self._workers = workers
        self._concurrency = ConcurrencyLimit(workers)
        self._logprobs = logprobs
        self._required = logprobs == "require"
        # Found out once and kept; two threads that find out at once find the same.
        self._weighed: bool | None = False if logprobs == "never" or (self._graded and scale[1] > 9) else None
        self._anchors: OrderedDict[bytes, str] = OrderedDict()
        self._lock = Mutex()
        self._reachable = False

    @property
    def cache_key(self) -> str | None:
        """Return the model's, with all that it is asked; see ``RewardModel``."""
        by_pair = callable(self._reference)
        return made_of(
            "judge",
            chat_key(self.chat),
            *([function_key(self._reference)] if by_pair else []),
            reference=None if by_pair else self._reference,
            criteria=list(self._criteria.items()),
            prompts=PROMPTS,
            graded=self._graded,
            mode=self.mode,
            logprobs=self._logprobs,
            scale=self._scale,
            limits=self._limits,
            top=self._top,
            temperature=self._temperature,
        )

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

    def check(self) -> None:
        """Find out whether the model can be asked at all, where it can tell without being paid for."""
        check = getattr(self.chat, "check", None)
        if check is not None and not self._reachable:
            check()
        self._reachable = True

    def _send(self, ask: Ask) -> Completion:
        return _only(self._concurrency.through(self.chat.chat, ask.messages, **self._options(ask)), self.name)

    async def _asend(self, ask: Ask) -> Completion:
        return _only(await self._concurrency.athrough(self.chat.achat, ask.messages, **self._options(ask)), self.name)

    def _options(self, ask: Ask) -> dict[str, Any]:
        limit = self._limits[0 if ask.weighed else 1]
        return {"temperature": self._temperature, "max_tokens": limit, "logprobs": self._top if ask.weighed else 0}

    def _flow(self, pairs: Sequence[Pair]) -> _Flow:
        """Yield questions and be sent their completions; the same text serves sync and async."""
        weighed = self._weighed
        asks, faults = self._asks(pairs, weighed is not False)
        results = yield asks
        answers = [Answer.of(ask, result) for ask, result in zip(asks, results, strict=True)]
        first: list[Answer] = []
        if weighed is None and asks and self._must_write(results, answers):
            first = answers
            asks, faults = self._asks(pairs, False)
            results = yield asks
            answers = [Answer.of(ask, result) for ask, result in zip(asks, results, strict=True)]
            first, answers = self._kept(first, answers)
        raise_if_broken(results, self.name)
        raise_if_broken([faults.get(i) for i in range(len(pairs))], self.name)
        return [self._about(i, answers, first, faults.get(i)) for i in range(len(pairs))]

    def _about(self, place: int, answers: Sequence[Answer], vain: Sequence[Answer], fault: Exception | None) -> Reward:
        if fault is not None:
            return Reward(math.nan, failure=f"{type(fault).__name__}: {fault}")
        found = [a for a in answers if a.ask.place == place]
        spent = sum((a.usage for a in vain if a.ask.place == place), Usage())
        return combine(found, spent) if found else Reward(0.0)  # no question: the anchor itself

    def _must_write(self, results: Sequence[Completion | Exception], answers: Sequence[Answer]) -> bool:
        """Learn from the first answers whether verdicts can be weighed; returns whether to ask for written ones."""
        good = [r for r in results if isinstance(r, Completion) and r.failure is None]
        refused = next((r for r in results if "logprob" in str(r).lower() and isinstance(r, Exception)), None)
        with self._lock:
            if self._weighed is None and any(a.failure is None for a in answers):
                self._weighed = True
            if self._weighed is not None:  # by now; another thread may have found out
                return not self._weighed
            if any(r.logprobs for r in good):  # but no verdict there: a thinking model, or one that has refused
                return not self._required
            if not good and refused is None:  # the model is down: stay unsure
                return False
            if self._required:
                raise UnsupportedError(
                    f"{self.chat.name} gives no log-probabilities, which {self.name!r} requires; "
                    "use another model, or logprobs='auto' to parse grades"
                )
            self._write_from_now_on("gives no log-probabilities here" if refused is None else f"said {refused!s:.200}")
        return True

    def _kept(self, weighed: list[Answer], written: list[Answer]) -> tuple[list[Answer], list[Answer]]:
        """Return the answers that count last; when none was readable by its probabilities, written ones may be."""
        with self._lock:
            if self._weighed is None and any(a.failure is None for a in written):
                self._write_from_now_on("gives no verdict where its log-probabilities are read")
            return (written, weighed) if self._weighed else (weighed, written)

    def _write_from_now_on(self, why: str) -> None:
        logger.warning("%s %s; %s parses written verdicts", self.chat.name, why, self.name)
        self._weighed = False

    def _asks(self, pairs: Sequence[Pair], weighed: bool) -> tuple[list[Ask], dict[int, Exception]]:
        """Write the questions; a pair that cannot be asked about, such as one without a reference, costs itself."""
        asks: list[Ask] = []
        faults: dict[int, Exception] = {}
        for place, pair in enumerate(pairs):
            try:
                reference = self._reference_for(pair)
                if self.mode == "pairwise":
                    asks += self._comparison(place, pair, reference, weighed)
                else:
                    asks += [self._question(place, pair, reference, *c, weighed) for c in self._criteria.items()]
            except Exception as error:  # noqa: BLE001  a user's function may raise anything
                faults[place] = error
        return asks, faults

    def _question(self, place: int, pair: Pair, reference: str | None, head: str, text: str, weighed: bool) -> Ask:
        if self._graded or not weighed:
            return grade(place, pair, head, text, reference, self._scale, weighed)
        question = f"Does the response meet this criterion: {text}?" if head else text
        return yes_or_no(place, pair, head, question, reference)

    def _comparison(self, place: int, pair: Pair, reference: str | None, weighed: bool) -> list[Ask]:
        other = self._anchor(pair) if reference is None else reference
        if other == pair.response:
            return []
        by = "\n".join(self._criteria.values())
        return compare(place, pair, other, f"Which response is better? Judge by this: {by}\n", weighed)

    def _anchor(self, pair: Pair) -> str:
        key = prompt_key(pair.asked)
        with self._lock:
            anchor = self._anchors.setdefault(key, pair.response)
            self._anchors.move_to_end(key)
            if len(self._anchors) > _ANCHORS:
                self._anchors.popitem(last=False)
            return anchor

    def _reference_for(self, pair: Pair) -> str | None:
        reference = self._reference(pair) if callable(self._reference) else self._reference
        if not isinstance(reference, (str, type(None))):
            raise TypeError(f"reference returned {type(reference).__name__}, not a text or None")
        return reference or None


def _only(completions: Sequence[Completion], name: str) -> Completion:
    if not completions:
        raise RewardError(f"the model of {name!r} returned no completion")
    return completions[0]
