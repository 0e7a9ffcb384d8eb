"""One reward server: reached, recognised, and trusted only once it has shown raw scores."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tpo_core.errors import RewardError, UnsupportedError
from tpo_core.rewards.servers import SERVERS, Form, Item, Server

if TYPE_CHECKING:
    import httpx

__all__ = ["Replica", "TransientError", "check_alike", "check_scores"]

_AGAIN = {408, 429, 500, 502, 503, 504}  # answers that another try may change


class TransientError(RewardError):
    """The server could not answer now; another try, or another replica, may."""


@dataclass
class Replica:
    """One URL. It lives in one event loop; nothing else touches it."""

    url: str
    client: httpx.AsyncClient
    server: Server | None
    """None until it is found out."""
    model: str | None
    in_flight: int = 0
    ready: bool = False
    """Whether its self-test has passed."""
    shown: tuple[float, ...] = ()
    """The scores of its self-test."""

    def __post_init__(self) -> None:
        self.setup = asyncio.Lock()
        """Held while the server is recognised and tested, so that this happens once."""

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count a call as under way."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def recognise(self) -> Server:
        """Find out what kind of server this is and what its model is called.

        Raises:
            UnsupportedError: It is none that is known here.
            TransientError: It cannot be reached.
        """
        if self.server is None:
            self.server = await self._find()
        if self.model is None:
            models = await self._peek("/v1/models")
            self.model = next((str(m.get("id", "")) for m in models.get("data") or []), "")
        return self.server

    async def scores(self, form: Form, items: Sequence[Item]) -> list[list[float]]:
        """Ask for the numbers of some items.

        Raises:
            TransientError: The server is unreachable, slow or overloaded.
            RewardError: It refused, or answered something else than scores for each item.
        """
        assert self.server is not None
        answer = await self._request("POST", self.server.path, self.server.body(self.model or "", form, items))
        try:
            numbers = self.server.read(answer)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            said = json.dumps(answer, ensure_ascii=False)
            raise RewardError(
                f"reward server {self.url} did not answer as {self.server.name} does ({error!r}): {said:.200}"
            ) from error
        if len(numbers) != len(items):
            raise RewardError(f"reward server {self.url} returned {len(numbers)} rewards for {len(items)} responses")
        return numbers

    async def _find(self) -> Server:
        for server in SERVERS:
            if server.sign is not None:
                path, holds = server.sign
                if holds(await self._peek(path)):
                    return server
        names = ", ".join(repr(s.name) for s in SERVERS)
        raise UnsupportedError(
            f"cannot tell what serves {self.url}; say server= one of {names}, or give request= and parse="
        )

    async def _peek(self, path: str) -> Mapping[str, Any]:
        """Return the JSON object at a path; empty when there is none."""
        try:
            found = await self._request("GET", path)
        except TransientError:
            raise
        except RewardError:
            return {}
        return found if isinstance(found, Mapping) else {}

    async def _request(self, method: str, path: str, body: Any = None) -> Any:
        import httpx

        asked = f"{method} {path or '/'}"
        try:
            response = await self.client.request(method, self.url + path, **({} if body is None else {"json": body}))
        except httpx.TimeoutException as error:
            raise TransientError(f"reward server {self.url} did not answer {asked} in time; see timeout=") from error
        except httpx.HTTPError as error:
            raise TransientError(
                f"reward server {self.url} cannot be reached: {error or type(error).__name__}"
            ) from error
        said = " ".join(response.text[:300].split())
        if response.status_code >= 400:
            kind = TransientError if response.status_code in _AGAIN else RewardError
            raise kind(f"reward server {self.url} answered {asked} with {response.status_code}: {said}")
        try:
            return response.json()
        except ValueError as error:
            raise RewardError(f"reward server {self.url} answered {asked} with no JSON: {said}") from error


def check_alike(replicas: Sequence[Replica]) -> None:
    """Refuse replicas that score the same answers differently: their rewards are compared with each other.

    A quarter of the spread is let pass: engines and number formats differ by several hundredths of it.

    Raises:
        UnsupportedError: Two replicas differ by more.
    """
    tested = [r for r in replicas if r.shown]
    for one, other in itertools.pairwise(tested):
        apart = max(abs(a - b) for a, b in zip(one.shown, other.shown, strict=True))
        if apart > (max(one.shown) - min(one.shown)) / 4:
            raise UnsupportedError(
                f"reward servers {one.url} and {other.url} score the same answers up to {apart:.3g} apart; "
                "replicas must serve one model in one way"
            )


def check_scores(scores: Sequence[float], url: str) -> None:
    """Refuse scores of unlike answers that no raw reward head would give.

    Raises:
        UnsupportedError: They are squashed to 0..1, all equal, or not finite.
    """
    shown = ", ".join(f"{s:.4g}" for s in scores)
    if not all(math.isfinite(s) for s in scores):
        raise UnsupportedError(f"reward server {url} failed its self-test: scores that are not finite ({shown})")
    if len(set(scores)) == 1:
        raise UnsupportedError(
            f"reward server {url} failed its self-test: it scores good and bad answers alike ({shown}); "
            "is this a softmax over one label, or not a reward model?"
        )
    if all(0.0 <= s <= 1.0 for s in scores):
        raise UnsupportedError(
            f"reward server {url} failed its self-test: it squashes scores to 0..1 ({shown}), where good answers can "
            "no longer be told apart. Serve raw logits, or give raw=False if the model's own scale is 0..1"
        )
