"""Chat models behind OpenAI's address or any that speaks its format, on the ``openai`` package's own client.

It costs less than half the processor time of a request through litellm, which serves every other provider. Requests go
through the client's ``post``: its resources, of which chat is one, are all imported at once and take a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.masking import hidden_errors, public
from tpo_core.models.openai_format import completions_of
from tpo_core.models.served import ServedChat
from tpo_core.threads import Mutex, after_fork
from tpo_core.values import Completion, Usage

if TYPE_CHECKING:
    import httpx
    import openai

__all__ = ["OpenAIChat", "served_models"]

PREFIX = "openai/"

OPENAI = "https://api.openai.com/v1"

_BESIDE = {
    "extra_headers": "headers", "extra_query": "params", "extra_body": "extra_json", "timeout": "timeout",
    "max_retries": "max_retries",
}  # fmt: skip
"""Settings that are no part of a request's own fields, and what the client's ``post`` calls them."""


class OpenAIChat(ServedChat):
    """A model behind OpenAI's own address, or behind ``api_base``: vLLM, SGLang, llama.cpp, Ollama, a gateway.

    Connections are shared by all models of a process, for each event loop. The client asks again where a server is
    overloaded (twice, unless ``max_retries`` says otherwise); ``Usage.requests`` counts that.

    Args:
        model: The model's name there; ``openai/`` before it is left out.
        api_base: The server's URL, ending in ``/v1``; by default ``OPENAI_BASE_URL``, or OpenAI's own.
        api_key: By default ``OPENAI_API_KEY``; a server of one's own seldom asks for one.
        **settings: ``timeout`` in seconds and ``max_retries``; anything else that OpenAI's client knows is passed on
            with each request (``response_format``, ``extra_headers``, ``extra_query``, ...), and ``extra_body`` takes
            what only this server knows.

    Example:
        >>> OpenAIChat("smol", api_base="http://127.0.0.1:8080/v1")
        OpenAIChat('smol')
    """

    _kind = "openai"

    def __init__(self, model: str, *, api_base: str | None = None, api_key: str | None = None, **settings: Any) -> None:
        """Note where the model is; nothing is asked yet."""
        api_base = api_base or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE") or None
        if api_base is not None and api_key is None:
            api_key = os.environ.get("OPENAI_API_KEY") or "none"  # the client refuses to go without
        super().__init__(model, api_base=api_base, api_key=api_key, **settings)
        self._limit = "max_completion_tokens" if _is_openai(api_base) else "max_tokens"

    def check(self) -> None:
        """Find out whether there is a key, and a server of one's own is there and takes it; nothing is paid for.

        Raises:
            ModelError: It is not so.
        """
        key, base = self._key(), self._settings["api_base"]
        if base and not _is_openai(base):
            with self._explaining():
                served_models(base, key)

    def _advice(self, status: int | None) -> str:
        return "; is OPENAI_API_KEY, or api_key=, valid there?" if status == 401 else ""

    def _create(self, request: dict[str, Any]) -> list[Completion]:
        return _completions(_sync_client().post(**self._given(request)))

    async def _acreate(self, request: dict[str, Any]) -> list[Completion]:
        return _completions(await (await _async_client()).post(**self._given(request)))

    def _key(self) -> str:
        key: str | None = self._settings["api_key"] or os.environ.get("OPENAI_API_KEY")
        if not key:
            raise ModelError(f"{self.name} needs a key: set OPENAI_API_KEY, or give api_key=")
        return key

    def _given(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the shared client's ``post``, with address and key: a copy of it would cost more."""
        import httpx
        from openai.types.chat.completion_create_params import CompletionCreateParamsBase

        own = {k: v for k, v in self._settings.items() if k not in ("api_base", "api_key")}
        beside = {option: own.pop(name) for name, option in _BESIDE.items() if own.get(name) is not None}
        beside["headers"] = {"Authorization": f"Bearer {self._key()}", **beside.get("headers", {})}
        if unknown := own.keys() - CompletionCreateParamsBase.__annotations__.keys() - _BESIDE.keys():
            raise InvalidInputError(
                f"OpenAIChat takes no {', '.join(sorted(unknown))}; what only this server knows goes into extra_body="
            )
        if "max_tokens" in request:
            request[self._limit] = request.pop("max_tokens")
        body = {"model": self.name.removeprefix(PREFIX), **own, **request}
        path = f"{(self._settings['api_base'] or OPENAI).rstrip('/')}/chat/completions"
        return {"path": path, "body": body, "options": beside, "cast_to": httpx.Response}


_lock = Mutex()
_clients: list[openai.OpenAI] = []  # one, once it is needed: making it takes half a second
_by_loop: dict[asyncio.AbstractEventLoop, tuple[openai.AsyncOpenAI, AsyncGenerator[None, None]]] = {}


def _forget() -> None:
    """Begin with no connections: a forked process must not send on those of its parent."""
    _clients.clear()
    _by_loop.clear()


after_fork(_forget)


def _sync_client() -> openai.OpenAI:
    """Return the process's client; whoever uses it says where and as whom."""
    import openai

    with _lock:
        if not _clients:
            http = openai.DefaultHttpxClient(limits=_limits(), verify=_certificates())
            _clients.append(openai.OpenAI(api_key="none", http_client=http))
        return _clients[0]


async def _async_client() -> openai.AsyncOpenAI:
    """Return the event loop's client: connections belong to the loop that opened them, and end with it."""
    import openai

    loop = asyncio.get_running_loop()
    if loop not in _by_loop:
        http = openai.DefaultAsyncHttpxClient(limits=_limits(), verify=_certificates())
        client = openai.AsyncOpenAI(api_key="none", http_client=http)
        closing = _closing(client, loop)
        with _lock:
            ended = [_by_loop.pop(other) for other in [*_by_loop] if other.is_closed()]
            _by_loop[loop] = client, closing
        del ended  # loops that nobody wound up
        await anext(closing)
    return _by_loop[loop][0]


async def _closing(client: openai.AsyncOpenAI, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
    """Close a client at the end of its loop, when ``asyncio.run`` and its like close the loop's async generators."""
    try:
        yield
    finally:
        with _lock:
            _by_loop.pop(loop, None)
        await client.close()


def _limits() -> Any:
    import httpx

    return httpx.Limits(max_connections=None, max_keepalive_connections=None)  # the drivers see to how many are asked


@cache
def _certificates() -> ssl.SSLContext:
    """Return what clients check servers by, read once: reading the authorities' file takes longer than a request."""
    import httpx

    return httpx.create_ssl_context()


def served_models(api_base: str, api_key: str | None) -> list[str]:
    """Return the names of a server's models, none where it does not tell.

    Raises:
        ModelError: No server answers there, or it refuses the key.
    """
    import httpx

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with hidden_errors(api_base=api_base, api_key=api_key):
        try:
            answer = httpx.get(f"{api_base.rstrip('/')}/models", headers=headers, timeout=10, verify=_certificates())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelError(
                f"no server answers at {public(api_base)} ({error}); start it, or correct its address (it usually "
                "ends in /v1)"
            ) from error
    if answer.status_code == 404 and not urlsplit(api_base).path.rstrip("/").endswith("/v1"):
        raise ModelError(
            f"{public(api_base)} has no /models: the address of an OpenAI-compatible server usually ends in /v1; "
            f"try {public(api_base.rstrip('/'))}/v1"
        )
    if answer.status_code in (401, 403):
        raise ModelError(f"the server at {public(api_base)} refuses the key ({answer.status_code}): set OPENAI_API_KEY")
    try:
        return [str(entry["id"]) for entry in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []


def _completions(response: httpx.Response) -> list[Completion]:
    """Read a response, and count the requests that it took."""
    found = completions_of(json.loads(response.content, object_hook=_read))
    retries = int(response.request.headers.get("x-stainless-retry-count") or 0)
    return [replace(c, usage=c.usage + Usage(requests=retries)) for c in found[:1]] + found[1:]


class _Fields(SimpleNamespace):
    """An object of a response; what a server leaves out is None."""

    def __getattr__(self, name: str) -> None:
        return None


def _read(data: dict[str, Any]) -> Any:
    return data if "logprob" in data else _Fields(**data)  # a token's are read by name


def _is_openai(api_base: str | None) -> bool:
    return api_base is None or (urlsplit(api_base).hostname or "").endswith("openai.com")
