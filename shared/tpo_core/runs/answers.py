"""What the queries under way were answered: by an earlier process of the run, as the store has it, and since then.

An answer is kept at once. How a whole request ended, with the calls that failed, and that a reward was no number, is
kept with the policy's next answer: until then it may be asked again, and by then the loop has gone on and must be told
the same once more, or all that came after would be asked and paid for anew.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from tpo_core.rewards.base import prompt_key
from tpo_core.runs.store import Admitted, Answer, RunStore
from tpo_core.runs.writer import Receipt
from tpo_core.trajectory import Trajectory
from tpo_core.values import Prompt

__all__ = ["Answers", "Key", "UnderWay"]

Key: TypeAlias = "tuple[str, int, str, bytes]"
"""What an answer is found by: task, step, seeds, hash."""


class UnderWay:
    """The queries of a run that are being answered; one for a run.

    Args:
        store: Where their answers are kept.
    """

    def __init__(self, store: RunStore) -> None:
        """Begin with none."""
        self.store = store
        self._by_prompt: dict[bytes, list[Answers]] = defaultdict(list)
        self._lock = threading.Lock()

    def begin(self, query: Admitted) -> Answers:
        """Take up a query, with what it was answered before."""
        answers = Answers(self, query)
        with self._lock:
            self._by_prompt[prompt_key(query.item.prompt)].append(answers)
        return answers

    def with_prompt(self, prompt: Prompt) -> list[Answers]:
        """Return the queries that ask this; several where a source asks the same under several ids."""
        with self._lock:
            return list(self._by_prompt.get(prompt_key(prompt), ()))

    def end(self, answers: Answers) -> None:
        """Drop a query that has ended."""
        key = prompt_key(answers.query.item.prompt)
        with self._lock:
            self._by_prompt[key].remove(answers)
            if not self._by_prompt[key]:
                del self._by_prompt[key]


class Answers:
    """One query's answers; get one from ``UnderWay.begin``, and end it with ``finish`` or ``fail``."""

    def __init__(self, under_way: UnderWay, query: Admitted) -> None:
        """Read what there is; a query that is new to the run has nothing."""
        self.query = query
        self._under_way = under_way
        self._kept = {_key(answer): answer for answer in under_way.store.answers(query)}
        self._new: set[Key] = set()
        self._past: dict[Key, Answer] = {}
        self._lock = threading.Lock()

    def find(self, key: Key) -> Answer | None:
        """Return what was answered to this, or None."""
        return self._kept.get(key)

    def has(self, key: Key) -> bool:
        """Return whether this was answered, by now or earlier."""
        return key in self._kept or key in self._new

    def note(self, past: Answer) -> None:
        """Remember what is to be kept once the loop is known to have gone on: with the policy's next answer."""
        with self._lock:
            self._past[_key(past)] = past

    def keep(self, answers: Sequence[Answer]) -> Receipt[None]:
        """Keep a policy's answers, with what the loop has gone on past to ask for them."""
        if not answers:
            return Receipt.of(None)
        with self._lock:
            past, self._past = list(self._past.values()), {}
            self._new.update(map(_key, answers))
        return self._under_way.store.keep([*past, *answers])

    def remember(self, answer: Answer) -> bool:
        """Find an answer from now on; returns whether it is new."""
        with self._lock:
            self._past.pop(_key(answer), None)
            return self._kept.setdefault(_key(answer), answer) is answer

    def finish(self, trajectory: Trajectory) -> Receipt[None]:
        """Commit the query's trajectory."""
        self._under_way.end(self)
        return self._under_way.store.finish(self.query.position, trajectory)

    def fail(self, error: BaseException) -> Receipt[None]:
        """Commit that the query failed."""
        self._under_way.end(self)
        return self._under_way.store.fail(self.query.position, error)


def _key(answer: Answer) -> Key:
    return answer.task, answer.step, answer.seeds, answer.hash
