"""One reward server: reached, recognised, and trusted only once it has shown raw scores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tpo_core.errors import RewardContractError, RewardError, UnsupportedError
from tpo_core.masking import hide
from tpo_core.rewards.remote.exchange import AnswerError, Connections
from tpo_core.rewards.remote.selftest import SelfTest
from tpo_core.rewards.remote.servers import SERVERS, UNREADABLE, Form, Item, Server

__all__ = ["Replica"]

_REST = 1.0  # seconds a replica is left alone after its first failure; they double up to _LONGEST
_LONGEST = 30.0


@dataclass(eq=False)
class Replica:
    """One URL. It lives in one event loop; nothing else touches it."""

    connections: Connections
    server: Server | None
    """None until it is found out."""
    model: str | None
    info: Mapping[str, Any] = field(default_factory=dict)
    """What it says of itself."""
    shown: SelfTest | None = None
    """What its self-test showed."""
    places: int = 16
    """Calls at once."""
    load: int = 0
    """Calls under way, and those that wait for a place."""
    in_flight: int = 0
    """Calls under way."""
    known: bool = False
    """Whether it was asked what it is."""
    ready: bool = False
    """Whether it was prepared."""
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    """By the loop's clock."""
    fails_since: float = 0.0
    """By the loop's clock; when the first of its failures was."""
    _preparing: asyncio.Future[None] | None = None
    _waiting: int = 0

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it for a call."""
        self.load += 1
        try:
            async with self._places:
                yield
        finally:
            self.load -= 1

    def rests(self) -> bool:
        """Return whether to leave it alone: it failed lately, or one call is finding out if it is back."""
        return self.failures > 0 and (self.in_flight > 0 or _now() < self.rests_until)

    def gone(self, patience: float) -> bool:
        """Return whether nothing but failures came for so many seconds, and one call is finding out if it is back."""
        return self.failures > 0 and self.in_flight > 0 and _now() - self.fails_since > patience

    def note(self, *, failed: bool, after: float | None = None) -> None:
        """Remember how a call went; ``after`` is the rest the server asked for, in seconds."""
        if failed and self.failures == 0:
            self.fails_since = _now()
        self.failures = self.failures + 1 if failed else 0
        if failed:
            rest = after if after is not None else min(_REST * 2 ** min(self.failures - 1, 9), _LONGEST)
            self.rests_until = _now() + rest

    async def prepared(self, prepare: Callable[[Replica], Awaitable[None]]) -> None:
        """Return once the replica is prepared; calls at once prepare it once, and share a failure."""
        if self.ready:
            return
        if self._preparing is None:
            self._preparing = asyncio.ensure_future(prepare(self))
            self._preparing.add_done_callback(self._was_prepared)
        work, self._waiting = self._preparing, self._waiting + 1
        try:
            await asyncio.shield(work)
        finally:
            self._waiting -= 1
            if self._waiting == 0 and not work.done():  # the last caller was cancelled
                self._preparing = None
                work.cancel()

    def _was_prepared(self, done: asyncio.Future[None]) -> None:
        if self._preparing is done:
            self._preparing = None
            self.ready = not done.cancelled() and done.exception() is None

    async def recognise(self) -> Server:
        """Find out what kind of server this is and what its model is called.

        Raises:
            UnsupportedError: It is none that is known here, or serves no reward model.
            TransientError: It cannot be reached.
        """
        if self.server is None or not self.known:
            server = await self._find()
            if reason := server.unfit(self.info):
                raise UnsupportedError(f"reward server {self.connections.url} {reason}")
            if self.model is None:
                self.model = await self._named(server)
            self.server, self.known = server, True
        return self.server

    @property
    def kind(self) -> Server:
        """What it was recognised as."""
        assert self.server is not None
        return self.server

    def batches(self, items: Mapping[int, Item], form: Form, size: int) -> list[list[int]]:
        """Cut the keys of items into what one request takes each."""
        most = self.info.get("max_client_batch_size")
        return self.kind.batches(items, form, min(size, most) if isinstance(most, int) and most > 0 else size)

    async def scores(self, form: Form, items: Sequence[Item]) -> list[list[float]]:
        """Ask for the numbers of some items.

        Raises:
            TransientError: The server is unreachable, slow or overloaded.
            RewardError: It refused, or answered something else than scores for each item.
        """
        server = await self.recognise()
        answer = await self.connections.ask("POST", server.path, server.body(self.model or "", form, items))
        try:
            numbers = server.read(answer, self.info)
        except UNREADABLE as error:
            said, what = hide(json.dumps(answer, ensure_ascii=False)), hide(repr(error))
            raise RewardError(
                f"reward server {self.connections.url} did not answer as {server.name} does ({what:.200}): {said:.200}"
            ) from error
        if len(numbers) != len(items):
            raise RewardContractError(
                f"reward server {self.connections.url} returned {len(numbers)} rewards for {len(items)} responses"
            )
        return numbers

    async def _find(self) -> Server:
        for server in SERVERS if self.server is None else (self.server,):
            for path in server.about:
                info = await self._peek(path)
                if server.sign(info):
                    self.info = info
                    return server
        if self.server is not None:
            return self.server
        names = ", ".join(repr(s.name) for s in SERVERS)
        raise UnsupportedError(
            f"cannot tell what serves {self.connections.url}; say server= one of {names}, or give request= and parse="
            + ("; a URL here ends before the /v1" if self.connections.url.rstrip("/").endswith("/v1") else "")
        )

    async def _named(self, server: Server) -> str:
        if server.lists_models:
            models = (await self._peek("/v1/models")).get("data")
            first = models[0] if isinstance(models, list) and models else None
            return str(first.get("id", "")) if isinstance(first, Mapping) else ""
        return next(
            (str(self.info[k]) for k in ("served_model_name", "model_id", "model_path") if self.info.get(k)), ""
        )

    async def _peek(self, path: str) -> Mapping[str, Any]:
        """Return the JSON object at a path; empty when there is none."""
        try:
            found = await self.connections.ask("GET", path)
        except AnswerError as error:
            if 300 <= error.status < 400 or error.status in (401, 403, 407):
                raise
            return {}
        return found if isinstance(found, Mapping) else {}


def _now() -> float:
    return asyncio.get_running_loop().time()
