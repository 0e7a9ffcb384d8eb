"""Policies and rewards that need no model: to test chains, programs and tools built on this project.

``ScriptedPolicy`` answers from a script. ``SimulatedPolicy`` behaves like a model that follows feedback: every query
has a hidden rubric, its reward (``RubricReward``) grades by it, and critiques carry information about it.
``FlakyPolicy`` makes any policy fail as providers and weak models do. ``WorldPolicy`` and ``WorldReward`` obey a known
law (``tpo_core.studies.worlds``): to compare plans in thousands of queries.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.loop.effects import Generate, Task
from tpo_core.models.policy import Policy
from tpo_core.prompts.rendering import show_query
from tpo_core.rewards.base import RewardModel
from tpo_core.studies.worlds import WORLDS, World, WorldGold, WorldPolicy, WorldReward
from tpo_core.values import Completion, Failure, Pair, Usage

__all__ = [
    "WORLDS",
    "FlakyPolicy",
    "RubricReward",
    "ScriptedPolicy",
    "ScriptedReward",
    "SimulatedPolicy",
    "World",
    "WorldGold",
    "WorldPolicy",
    "WorldReward",
    "rubric",
]

Answer = Any  # a text, a Completion, a Failure, or an exception to raise


class ScriptedPolicy:
    """Says, for each task, the next answer of its script; the last one again when the script is over.

    Args:
        sample: Answers of the policy, in the order they are asked for: texts, ``Completion`` objects, ``Failure``
            objects or exceptions to raise. Or a function of ``(request, seed)`` that returns one.
        loss: Likewise the textual losses.
        gradient: Likewise the textual gradients.
        update: Likewise the updates.
        takes_n: Whether one call may ask for several samples.

    Example:
        >>> from tpo_core import TPOConfig, run
        >>> policy = ScriptedPolicy(sample=["bad", "good"], update=["very good"])
        >>> reward = ScriptedReward({"bad": 0, "good": 1, "very good": 2})
        >>> run("query", policy, reward, TPOConfig(width=2, depth=1)).best.response
        'very good'
    """

    fatal: tuple[type[Exception], ...] = ()

    def __init__(
        self,
        sample: Iterable[Answer] | Callable[[Generate, int], Answer] = ("a sample",),
        loss: Iterable[Answer] | Callable[[Generate, int], Answer] = ("the chosen is better",),
        gradient: Iterable[Answer] | Callable[[Generate, int], Answer] = ("make it better still",),
        update: Iterable[Answer] | Callable[[Generate, int], Answer] = ("an update",),
        *,
        takes_n: bool = False,
    ) -> None:
        """Take the scripts."""
        scripts = {"sample": sample, "loss": loss, "gradient": gradient, "update": update}
        self._scripts = {t: s if callable(s) else _Script(t, s) for t, s in scripts.items()}
        self.takes_n: MutableMapping[Task, bool] = dict.fromkeys(("sample", "loss", "gradient", "update"), takes_n)
        self.requests: list[Generate] = []
        """Every request asked, in order."""

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Say the next answers."""
        self.requests.append(request)
        return [_completion(self._scripts[request.task](request, seed)) for seed in seeds]

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Say the next answers."""
        return self.generate(request, seeds)


class _Script:
    def __init__(self, task: str, answers: Iterable[Answer]) -> None:
        self._answers = [answers] if isinstance(answers, str) else list(answers)
        self._next = 0
        if not self._answers:
            raise InvalidInputError(f"{task} must hold at least one answer")

    def __call__(self, request: Generate, seed: int) -> Answer:
        answer = self._answers[min(self._next, len(self._answers) - 1)]
        self._next += 1
        return answer


class ScriptedReward(RewardModel):
    """Looks each response up in a table; what is not in it gets ``default``, NaN unless given.

    Example:
        >>> ScriptedReward({"yes": 1}).score("q", ["yes"])
        [1.0]
    """

    def __init__(self, rewards: Mapping[str, float], default: float = float("nan"), *, merges: bool = False) -> None:
        """Take the table."""
        self._rewards, self._default = dict(rewards), default
        self.merges = merges  # type: ignore[misc]
        self.batches: list[int] = []
        """The size of every batch scored."""

    def score_batch(self, pairs: Sequence[Pair]) -> list[float]:
        """Look the responses up."""
        self.batches.append(len(pairs))
        return [self._rewards.get(pair.response, self._default) for pair in pairs]


WORDS = tuple(f"w{number:02d}" for number in range(60))
"""What a simulated response is made of."""


def rubric(query: str) -> frozenset[str]:
    """Return the hidden rubric of a query: the 12 words of ``WORDS`` a good response has."""
    return frozenset(random.Random(_digest(query)).sample(WORDS, 12))


class RubricReward(RewardModel):
    """Grades a simulated response by its query's rubric: +1 for each word that belongs, -0.5 for each that does not."""

    def score_batch(self, pairs: Sequence[Pair]) -> list[float]:
        """Grade."""
        return [self._grade(rubric(show_query(pair.prompt)), set(pair.response.split())) for pair in pairs]

    @staticmethod
    def _grade(wanted: frozenset[str], words: set[str]) -> float:
        return len(words & wanted) - 0.5 * len(words - wanted)


class SimulatedPolicy:
    """A policy that follows feedback, with an imperfect taste of its own.

    A sample is 12 random words. Its critic recognises whether a word belongs to the hidden rubric more often than not,
    and better when it compares a chosen with a rejected response (right 80 % of the time) than when it judges one
    alone (65 %). Its editor never sees the rubric: it keeps what the instructions praise, drops what they doubt, adds
    what they would borrow from the rejected response, and fills up with words it was not warned of.

    Args:
        follows: The probability that an instruction is followed; 0 ignores feedback: each update is a fresh sample.
        seed: Makes it another policy; with the same seed the same requests get the same answers, in any order.
    """

    fatal: tuple[type[Exception], ...] = ()

    def __init__(self, follows: float = 0.9, seed: int = 0) -> None:
        """Set how well feedback is followed."""
        if not 0 <= follows <= 1:
            raise InvalidInputError(f"follows must be between 0 and 1, not {follows}")
        self._follows, self._seed = follows, seed
        self.takes_n: MutableMapping[Task, bool] = {}

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Answer from the prompt and the seed alone."""
        answer = {"sample": self._sample, "loss": self._loss, "gradient": self._gradient, "update": self._update}
        texts = [answer[request.task](request.inputs, random.Random(self._key(request, seed))) for seed in seeds]
        shown = len(str(request.inputs).split())
        return [Completion(text, finish_reason="stop", usage=Usage(0, 1, shown, len(text.split()))) for text in texts]

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Answer as ``generate`` does."""
        return self.generate(request, seeds)

    def _key(self, request: Generate, seed: int) -> int:
        return _digest(f"{self._seed}|{seed}|{request.task}|{request.inputs}")

    def _sample(self, inputs: Any, draw: random.Random) -> str:
        return " ".join(draw.sample(WORDS, 12))

    def _loss(self, inputs: Mapping[str, str], draw: random.Random) -> str:
        wanted = rubric(_unfenced(inputs["query"]))
        chosen, rejected = _words(inputs["chosen_response"]), _words(inputs.get("rejected_response", ""))
        sharp = 0.8 if rejected else 0.65
        liked = {word for word in sorted(chosen | rejected) if (word in wanted) == (draw.random() < sharp)}
        said = {"Good": chosen & liked, "Bad": (chosen | rejected) - liked, "Missing": (rejected - chosen) & liked}
        return "\n".join(f"{label}: {' '.join(sorted(words))}" for label, words in said.items())

    def _gradient(self, inputs: Mapping[str, str], draw: random.Random) -> str:
        told = {"Keep": "Good", "Avoid": "Bad", "Add": "Missing"}
        return "\n".join(f"{do}: {' '.join(_after(said, inputs['critique']))}" for do, said in told.items())

    def _update(self, inputs: Mapping[str, str], draw: random.Random) -> str:
        if not self._follows:
            return self._sample(inputs, draw)
        now, told = _words(inputs["chosen_response"]), inputs["editing_instructions"]
        heard = {word for word in WORDS if draw.random() < self._follows}
        avoid, add = (set(_after(label, told)) & heard for label in ("Avoid", "Add"))
        words = (now - avoid) | add
        untried = sorted(set(WORDS) - words - avoid)
        fill = draw.sample(untried, min(len(untried), max(0, 12 - len(words))))
        return " ".join(sorted(words | set(fill)))


class ScriptedOutage(Exception):
    """What a provider's client raises, with the HTTP status that it got."""

    def __init__(self, status: int, message: str) -> None:
        """Take the status."""
        super().__init__(f"status {status}: {message}")
        self.status_code = status


class FlakyPolicy:
    """Another policy behind a provider that fails and a model that is weak; the same requests fail in any order.

    Args:
        policy: Who answers what gets through.
        failing: The share of calls that raise, with status 429, 500 or 503.
        malformed: The share of the other calls' completions that are empty, a placeholder or cut off.
        refuses_n: Whether a call for several samples is refused with status 400.
        seed: Makes it fail elsewhere.

    Example:
        >>> from tpo_core import TPOConfig, run
        >>> policy = FlakyPolicy(SimulatedPolicy(), failing=0.3, malformed=0.2, refuses_n=True)
        >>> trajectory = run("query", policy, RubricReward(), TPOConfig(depth=1))
        >>> trajectory.usage.calls == policy.asked, policy.takes_n["sample"]
        (True, False)
    """

    def __init__(
        self,
        policy: Policy,
        *,
        failing: float = 0.0,
        malformed: float = 0.0,
        refuses_n: bool = False,
        seed: int = 0,
    ) -> None:
        """Set how much fails."""
        self._policy, self._failing, self._malformed = policy, failing, malformed
        self._refuses_n, self._seed = refuses_n, seed
        self.fatal, self.takes_n = policy.fatal, policy.takes_n
        self.asked = 0
        """Samples asked for so far, in calls that failed, too."""
        self._lock = threading.Lock()
        self._turns: Counter[str] = Counter()

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Answer, or fail."""
        draw = self._draw(request, seeds)
        return [self._spoilt(c, draw) for c in self._policy.generate(request, seeds)]

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Answer, or fail."""
        draw = self._draw(request, seeds)
        return [self._spoilt(c, draw) for c in await self._policy.agenerate(request, seeds)]

    def _draw(self, request: Generate, seeds: Sequence[int]) -> random.Random:
        """Return what decides about this call; the same request made again is another call."""
        about = f"{self._seed}|{request.task}|{request.inputs}|{tuple(seeds)}"
        with self._lock:
            self.asked += len(seeds)
            self._turns[about] += 1
            draw = random.Random(_digest(f"{about}|{self._turns[about]}"))
        if draw.random() < self._failing:
            raise ScriptedOutage(draw.choice((429, 500, 503)), "scripted failure")
        if self._refuses_n and len(seeds) > 1:
            raise ScriptedOutage(400, "n must be 1")
        return draw

    def _spoilt(self, completion: Completion, draw: random.Random) -> Completion:
        if draw.random() >= self._malformed:
            return completion
        cut = replace(completion, finish_reason="length")
        empty, placeholder = replace(completion, text=""), replace(completion, text="{improved_response}")
        return draw.choice((empty, placeholder, cut))


def _completion(answer: Answer) -> Completion:
    if isinstance(answer, BaseException):
        raise answer
    if isinstance(answer, Failure):
        return Completion(failure=answer)
    return answer if isinstance(answer, Completion) else Completion(str(answer), finish_reason="stop")


def _words(text: str) -> set[str]:
    return set(re.findall(r"\bw\d\d\b", text))


def _after(label: str, text: str) -> list[str]:
    found = re.search(rf"{label}:(.*)", text)
    return re.findall(r"\bw\d\d\b", found[1]) if found else []


def _unfenced(text: str) -> str:
    return "\n".join(text.splitlines()[1:-1])


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
