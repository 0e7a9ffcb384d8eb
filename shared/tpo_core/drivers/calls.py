"""Which calls answer one ``Generate``: one for all n where the model may take it, single ones for what is missing.

Nothing is called here: a driver makes the calls that are due, and hands back what came of them.

- Whatever a call asks for counts, also where it fails, and the request's allowance is never exceeded; a policy that
  asks for more than the samples (advice, say) reports so many calls.
- That a model does not take ``n`` is learnt from a refusal, or from one completion for many; never from a failure that
  may pass, nor from an answer that is only short.
- After a refused key, or for a model that is not there, nothing more is asked.
- After a call for n that failed otherwise one single call goes ahead, and two more if it fails, too; where all of them
  fail the rest shares their failure instead of repeating it.
- A single call that failed for a reason that may pass is made once more, if any other of the request succeeded.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from typing import TypeAlias

from tpo_core.drivers.outcomes import Done, Late, Raised
from tpo_core.loop.effects import Generate, Task
from tpo_core.models.refusals import lasts, may_pass, may_refuse_n, one_line, refuses_n, serves_nobody
from tpo_core.values import Completion, Failure, Usage, changed

__all__ = ["Calls", "Seeds"]

Seeds: TypeAlias = tuple[int, ...]
"""What one call asks for: a sample per seed."""

AHEAD = 3
"""Most single calls that go ahead after a failed call for n: few enough to spare a dead model, and enough that one
which fails three times in ten is seldom taken for dead."""

_MISSING = Completion(failure=Failure("missing", "the model returned no completion"))


class Calls:
    """The calls of one request.

    Args:
        request: What is asked.
        takes_n: What is known about the policy's models; what is found out is entered there.
    """

    def __init__(self, request: Generate, takes_n: MutableMapping[Task, bool]) -> None:
        """Note what is wanted; nothing is due until asked for."""
        self._request, self._takes_n = request, takes_n
        self._left = math.inf if request.spare is None else len(request.seeds) + request.spare
        self._open = list(request.seeds)
        self._done: dict[int, Completion] = {}
        self._failed: dict[int, Exception] = {}
        self._of_n: Exception | None = None  # what a call for n raised
        self._again = True
        self._asked = 0
        self._uncounted = 0  # requests that no completion counts

    def due(self) -> list[Seeds]:
        """Return the calls to make now, which may run at once; none when there is nothing more to ask."""
        if not self._open and not self._failed:
            return []
        if not self._asked and self._may_ask_for_all():
            return [self._request.seeds]
        singles = self._singles() if not self._late else []
        return [(seed,) for seed in singles[: int(min(self._left, len(singles)))]]

    def take(self, calls: Sequence[Seeds], outcomes: Sequence[Done[Sequence[Completion]] | Raised]) -> None:
        """Take what came of calls: completions or an exception each, in order."""
        for seeds, outcome in zip(calls, outcomes, strict=True):
            self._asked += len(seeds)
            self._left -= len(seeds)
            if isinstance(outcome, Raised):
                self._fail(seeds, outcome.error)
            else:
                self._enter(seeds, list(outcome.value)[: len(seeds)])

    def completions(self) -> list[Completion]:
        """Return one completion per seed, failures included; the first carries what the failed calls cost."""
        last = list(self._failed.values())[-1] if self._failed else self._of_n
        shared = _MISSING if last is None else _lost(last)
        found = [
            self._done.get(s) or (_lost(self._failed[s]) if s in self._failed else shared) for s in self._request.seeds
        ]
        first, *others = [changed(c, usage=changed(c.usage, calls=0)) if c.usage.calls else c for c in found]
        return [changed(first, usage=first.usage + Usage(self._asked, self._uncounted)), *others]

    # -- what is due --------------------------------------------------------------------------------------------------

    def _may_ask_for_all(self) -> bool:
        """Return whether one call asks for all; an unknown model is asked so only if a refusal can be made up for."""
        n, known = len(self._open), self._takes_n.get(self._request.task)
        return n > 1 and known is not False and (known is True or self._left >= 2 * n)

    def _singles(self) -> list[int]:
        if self._of_n is not None and not self._done and not refuses_n(self._of_n):
            return self._ahead()
        if self._open:
            return self._open
        again = [seed for seed, error in self._failed.items() if may_pass(error)] if self._again and self._done else []
        self._again = False
        return again

    def _ahead(self) -> list[int]:
        """Return the calls that go ahead while nobody knows whether the model answers at all."""
        tried = len(self._failed)
        dead = self._of_n is not None and serves_nobody(self._of_n)
        if dead or tried >= AHEAD or any(lasts(error) for error in self._failed.values()):
            return []
        return self._open[: AHEAD - 1 if tried else 1]

    @property
    def _late(self) -> bool:
        return isinstance(self._of_n, Late) or any(isinstance(e, Late) for e in self._failed.values())

    # -- what came ----------------------------------------------------------------------------------------------------

    def _fail(self, seeds: Seeds, error: Exception) -> None:
        self._uncounted += 1
        if len(seeds) > 1:
            self._of_n = error
            if refuses_n(error):
                self._takes_n[self._request.task] = False
            return
        self._failed[seeds[0]] = error
        self._close(seeds)

    def _enter(self, seeds: Seeds, found: list[Completion]) -> None:
        if len(seeds) > 1:
            self._learn(len(found))
        elif self._of_n is not None and may_refuse_n(self._of_n):
            self._takes_n[self._request.task] = False
        spent = Usage.total([c.usage for c in found])
        more = max(0, spent.calls - len(seeds))
        self._asked += more
        self._left -= more
        if not spent.requests:  # the policy does not count its requests
            self._uncounted += 1
        found = found or [_MISSING] * (len(seeds) == 1)
        answered = seeds[: len(found)]
        self._done |= zip(answered, found, strict=True)
        self._close(answered)

    def _learn(self, came: int) -> None:
        if came in (1, len(self._open)):
            self._takes_n[self._request.task] = came > 1

    def _close(self, seeds: Seeds) -> None:
        if self._failed:
            self._failed = {s: e for s, e in self._failed.items() if s not in self._done}
        self._open = [seed for seed in self._open if seed not in seeds]


def _lost(error: Exception) -> Completion:
    if isinstance(error, Late):
        return Completion(failure=Failure("deadline", "not there when the deadline passed"))
    return Completion(failure=Failure("error", one_line(error), error, serves_nobody(error)))
