"""JSON exchanges with one server: bounded in time and size, and nothing secret in what is said about them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tpo_core.errors import RewardError
from tpo_core.masking import Secrets, hide, public
from tpo_core.models.refusals import retry_after

if TYPE_CHECKING:
    import httpx

__all__ = ["AnswerError", "Connections", "TransientError"]

T = TypeVar("T")

_AGAIN = {408, 429, 500, 502, 503, 504}  # answers that another try may change
_MOST = 64 * 2**20  # bytes of one answer; a score takes a few hundred
_LOOKED_AT = 2**16  # bytes of an error's body
_CONNECT = 10.0  # seconds; a host that is up accepts at once, however long it then computes


class TransientError(RewardError):
    """The server could not answer now; another try, or another replica, may."""

    def __init__(self, message: str, status: int = 0, after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of the answer; 0 when there was none."""
        self.after = after
        """Seconds the server asked to be left alone for; None when it did not say."""


class AnswerError(RewardError):
    """The server answered, and another try would not change it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Connections:
    """Connections to one server. It lives in one event loop; nothing else touches it.

    Args:
        url: The server's, without the path of its endpoints.
        headers: Sent with each request. Redirects are not followed, since they would take them elsewhere.
        timeout: Seconds for one exchange as a whole, from connecting to the answer's last byte.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str], timeout: float) -> None:
        import httpx

        self.url = public(url)
        self._parts = urlsplit(url)
        self._timeout = timeout
        self._secrets = Secrets(url=url, headers=headers)
        limits = httpx.Limits(max_connections=None)  # whoever asks sees to that
        # A proxy of the environment is for other hosts; a transport of one's own leaves it aside.
        near = httpx.AsyncHTTPTransport(limits=limits) if _is_loopback(self._parts.hostname or "") else None
        self._client = httpx.AsyncClient(
            transport=near,
            limits=limits,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT)),
            headers={"Accept-Encoding": "identity", **headers},  # nothing small that unpacks to something huge
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send JSON (or nothing, without a body) and return the JSON of the answer.

        Raises:
            TransientError: The server is unreachable, slow or overloaded.
            AnswerError: It refused, redirects, or answered with something else than JSON.
        """
        import httpx

        asked = f"{method} {path}".rstrip()
        content = None if body is None else self._written(body)
        try:
            status, headers, data = await _within(self._timeout, self._exchange(method, path, content))
        except (asyncio.TimeoutError, httpx.TimeoutException) as error:
            raise TransientError(f"reward server {self.url} did not answer {asked} in time; see timeout=") from error
        except (httpx.HTTPError, OSError) as error:
            raise TransientError(
                f"reward server {self.url} cannot be reached: {error or type(error).__name__}"
            ) from error
        return self._read(asked, status, headers, data)

    def _written(self, body: Any) -> bytes:
        try:
            return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError) as error:
            raise RewardError(f"what is to be sent to reward server {self.url} is no JSON: {error}") from error

    async def _exchange(self, method: str, path: str, content: bytes | None) -> tuple[int, httpx.Headers, bytes]:
        kind = {} if content is None else {"Content-Type": "application/json"}
        parts = self._parts._replace(path=self._parts.path.rstrip("/") + path) if path else self._parts
        url = parts.geturl()
        async with self._client.stream(method, url, content=content, headers=kind) as response:
            data = bytearray()
            async for part in response.aiter_bytes():
                data += part
                if len(data) > _MOST:
                    raise AnswerError(
                        f"reward server {self.url} answered with more than {_MOST >> 20} MiB", response.status_code
                    )
            return response.status_code, response.headers, bytes(data)

    def _read(self, asked: str, status: int, headers: httpx.Headers, data: bytes) -> Any:
        if 300 <= status < 400:
            raise AnswerError(
                f"reward server {self.url} redirects {asked} to {hide(headers.get('Location', 'nowhere'))!r}; "
                "redirects are not followed: give the URL where it ends",
                status,
            )
        if status >= 400:
            said = f"reward server {self.url} answered {asked} with {status}: {_said(data)}"
            if status in _AGAIN:
                raise TransientError(said, status, retry_after(headers.get("Retry-After")))
            raise AnswerError(said + ("; give the key it wants as headers=" if status in (401, 403) else ""), status)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise AnswerError(
                f"reward server {self.url} answered {asked} with no JSON: {_said(data)}", status
            ) from error


def _said(data: bytes) -> str:
    """Return the start of what a server said: masked before it is cut, since a cut could leave part of a secret."""
    return " ".join(hide(data[:_LOOKED_AT].decode("utf-8", "replace")).split())[:300]


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` for so long, then cancel it.

    Unlike ``asyncio.wait_for`` before Python 3.12, no cancellation of the caller is lost when ``work`` has just ended.

    Raises:
        TimeoutError: It took longer.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be there to read it
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise asyncio.TimeoutError
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
