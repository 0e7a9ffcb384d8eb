"""The replicas of one reward model: the least busy is asked, and another when one fails for now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from tpo_core.errors import RewardError
from tpo_core.rewards.remote.exchange import AnswerError, Connections, TransientError
from tpo_core.rewards.remote.replica import Replica
from tpo_core.rewards.remote.servers import Server

if TYPE_CHECKING:
    import tenacity

__all__ = ["Fleet"]

T = TypeVar("T")

_LONGEST = 30.0  # seconds between two tries, where the server does not ask for more


class Fleet:
    """Connections to some servers of one model. They belong to the event loop that runs when they are first used."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        server: Server | None,
        model: str | None,
        connections: int,
        timeout: float,
        retries: int,
        backoff: float,
        headers: Mapping[str, str],
    ) -> None:
        self._urls = urls
        self._server = server
        self._model = model
        self._connections = connections
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._headers = headers
        self._replicas: list[Replica] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave the connections behind."""
        return {**vars(self), "_replicas": [], "_loop": None}

    def replicas(self) -> list[Replica]:
        """Return the replicas; new ones in another event loop than the last, such as a forked process has."""
        loop = asyncio.get_running_loop()
        if not self._replicas or self._loop is not loop:
            self._loop = loop
            connections = [Connections(url, headers=self._headers, timeout=self._timeout) for url in self._urls]
            self._replicas = [
                Replica(each, self._server, self._model, places=self._connections) for each in connections
            ]
        return self._replicas

    async def trying(self, call: Callable[[Replica], Awaitable[T]]) -> T:
        """Call with the least busy replica that is well, again with another while the failure may pass.

        Raises:
            TransientError: The last try failed, too.
        """
        import tenacity

        tried: Counter[Replica] = Counter()
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=self._pause,
            reraise=True,
        ):
            with attempt:
                return await self._try(call, tried)
        raise AssertionError("unreachable")

    async def _try(self, call: Callable[[Replica], Awaitable[T]], tried: Counter[Replica]) -> T:
        while True:
            replica = min(self.replicas(), key=lambda r: (r.rests(), tried[r], r.load))
            async with replica.place():
                if all(r.gone(self._timeout * (self._retries + 1)) for r in self.replicas()):
                    raise RewardError(
                        f"reward server {replica.connections.url} has only failed for too long to be waited for"
                    )
                if not replica.rests() or all(r.rests() for r in self.replicas()):
                    tried[replica] += 1
                    return await self._call(replica, call)
            # While this call waited for a place, the replica failed and others are well.

    async def _call(self, replica: Replica, call: Callable[[Replica], Awaitable[T]]) -> T:
        replica.in_flight += 1
        try:
            found = await call(replica)
        except TransientError as error:
            replica.note(failed=True, after=None if error.after is None else min(error.after, self._timeout))
            raise
        except AnswerError:  # a refusal, but an answer
            replica.note(failed=False)
            raise
        finally:
            replica.in_flight -= 1
        replica.note(failed=False)
        return found

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds before the next try: none where a replica is well, else what the server asked for."""
        import tenacity

        if not all(replica.rests() for replica in self.replicas()):
            return 0.0
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, TransientError) and error.after is not None:
            return min(error.after, self._timeout)
        return float(tenacity.wait_random_exponential(multiplier=self._backoff, max=_LONGEST)(state))

    async def disconnect(self) -> None:
        """Close all connections of this event loop."""
        replicas, self._replicas = self._replicas, []
        if self._loop is asyncio.get_running_loop():
            for replica in replicas:
                await replica.connections.close()
