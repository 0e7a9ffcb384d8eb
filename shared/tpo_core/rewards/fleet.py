"""The replicas of one reward model: the least busy is asked, and another when one fails for now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from tpo_core.rewards.replica import Replica, TransientError
from tpo_core.rewards.servers import Server

__all__ = ["Fleet"]

T = TypeVar("T")


class Fleet:
    """Connections to some servers of one model. It lives in one event loop."""

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

    def __getstate__(self) -> dict[str, object]:
        """Leave the connections behind."""
        return {**vars(self), "_replicas": []}

    def replicas(self) -> list[Replica]:
        """Return the replicas, connected."""
        if not self._replicas:
            import httpx

            limits = httpx.Limits(max_connections=self._connections)
            patience = httpx.Timeout(self._timeout, pool=None)  # waiting for a turn is not the server's slowness
            clients = [httpx.AsyncClient(limits=limits, timeout=patience, headers=self._headers) for _ in self._urls]
            self._replicas = [
                Replica(url, client, self._server, self._model) for url, client in zip(self._urls, clients, strict=True)
            ]
        return self._replicas

    async def trying(self, call: Callable[[Replica], Awaitable[T]]) -> T:
        """Call with the least busy replica, again with another while the failure may pass.

        Raises:
            TransientError: The last try failed, too.
        """
        import tenacity

        tried: dict[str, int] = {}
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=tenacity.wait_random_exponential(multiplier=self._backoff, max=30),
            reraise=True,
        ):
            with attempt:
                replica = min(self.replicas(), key=lambda r: (tried.get(r.url, 0), r.in_flight))
                tried[replica.url] = tried.get(replica.url, 0) + 1
                with replica.busy():
                    return await call(replica)
        raise AssertionError("unreachable")

    async def disconnect(self) -> None:
        """Close all connections."""
        for replica in self._replicas:
            await replica.client.aclose()
        self._replicas = []
