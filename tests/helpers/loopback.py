"""A small OpenAI-compatible server on 127.0.0.1, for tests: real sockets, real clients, scripted answers.

It honours ``n``, ``seed``, ``temperature``, ``max_tokens``, ``stream`` (with ``stream_options.include_usage``),
``logprobs`` and ``top_logprobs``, ``response_format`` and scripted tool calls, and counts tokens as words. Unscripted,
it answers something that follows from the request's content, and something else each time it is asked, unless a seed
or temperature 0 says that it should not.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from loopback_answers import DefaultAnswers, Refused, chunks, complete, count_first

__all__ = ["Answer", "LoopbackServer"]

Answer = Callable[[dict[str, Any], int], "str | dict[str, Any] | tuple[int, Any]"]
"""A function of the request's JSON and the answer's running number (over the whole server, from 0, one per choice).

It returns the text; or a message dict (``content``, ``tool_calls``, and beside them ``logprobs`` as a list of
token-to-logprob dicts, or ``finish_reason``); or ``(status, body)`` to fail the request. It is called from several
threads at once.
"""


class LoopbackServer:
    """Serve ``POST /v1/chat/completions`` and ``GET /v1/models`` while the ``with`` block runs.

    Args:
        answer: What to say; see ``Answer``. By default distinct texts that follow from the request.
        model: The one name under ``/v1/models``; any name is answered.
        n: ``honour`` sends n choices; ``ignore`` always one, as some providers do; ``reject`` fails n > 1 with 400.
        latency: Seconds each request takes, to stand in for a slow provider.
        failures: Status codes for the first requests, in order: 0 or 200 lets that one through.
        reports: ``all`` counts the tokens of all choices; ``first`` those of the first one, as llama.cpp's server does.

    Example:
        with LoopbackServer(answer=lambda request, number: f"text {number}") as server:
            LiteLLMChat("openai/smol", api_base=server.url).chat([{"role": "user", "content": "hi"}])
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        model: str = "smol",
        n: Literal["honour", "ignore", "reject"] = "honour",
        latency: float = 0.0,
        failures: Iterable[int] = (),
        reports: Literal["all", "first"] = "all",
    ) -> None:
        """Set what is served; nothing listens yet."""
        self.answer: Answer = answer or DefaultAnswers()
        self.model, self.n, self.latency = model, n, latency
        self.reports = reports
        self._failures = list(failures)
        self._lock = threading.Lock()
        self._requests: list[dict[str, Any]] = []
        self._answered = self._in_flight = self._most_in_flight = 0
        self._server: _Server | None = None

    def __enter__(self) -> LoopbackServer:
        """Listen on a free port."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True, name="loopback").start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop listening."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Return the base URL, ``http://127.0.0.1:PORT/v1``."""
        assert self._server is not None, "the server runs inside its with block only"
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Return the JSON of every chat request so far, failed ones included, in the order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def max_in_flight(self) -> int:
        """Return the most chat requests that were open at once."""
        return self._most_in_flight

    def clear(self) -> None:
        """Forget the requests and the counts."""
        with self._lock:
            self._requests.clear()
            self._answered = self._most_in_flight = 0

    # -- for the handler ----------------------------------------------------------------------------------------------

    def arrive(self, request: dict[str, Any]) -> int:
        """Book a request; returns the status it is to fail with, or 0."""
        with self._lock:
            self._requests.append(request)
            self._in_flight += 1
            self._most_in_flight = max(self._most_in_flight, self._in_flight)
            status = self._failures.pop(0) if self._failures else 0
            return 0 if status == 200 else status

    def leave(self) -> None:
        """Book that a request has been answered."""
        with self._lock:
            self._in_flight -= 1

    def next_number(self) -> int:
        """Return the running number of the next answer."""
        with self._lock:
            self._answered += 1
            return self._answered - 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # the default of 5 resets connections when many clients come at once
    owner: LoopbackServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let clients hang up in the middle, as impatient ones do."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """List the models."""
        if self.path.split("?")[0] == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": self.server.owner.model, "object": "model"}]})
        else:
            self._fail(404, f"nothing at {self.path}")

    def do_POST(self) -> None:
        """Answer a chat request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/chat/completions":
            self._fail(404, f"nothing at {self.path}")
            return
        try:
            request = json.loads(body)
            messages = request["messages"]
            assert messages and all("role" in m for m in messages)
        except (ValueError, KeyError, TypeError, AssertionError):
            self._fail(400, "the body must be a JSON object with messages")
            return
        status = self.server.owner.arrive(request)
        try:
            self._answer(request, status)
        finally:
            self.server.owner.leave()

    def _answer(self, request: dict[str, Any], status: int) -> None:
        owner = self.server.owner
        if owner.latency:
            time.sleep(owner.latency)
        n = request.get("n") or 1
        if status:
            self._fail(status, "injected failure")
        elif n > 1 and owner.n == "reject":
            self._fail(400, "n must be 1")
        else:
            try:
                response = complete(request, n if owner.n == "honour" else 1, owner.answer, owner.next_number)
            except Refused as refused:
                self._send(refused.status, refused.body)
                return
            if owner.reports == "first":
                count_first(response)
            if request.get("stream"):
                self._stream(request, response)
            else:
                self._send(200, response)

    def _stream(self, request: dict[str, Any], response: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        for event in [*(json.dumps(c) for c in chunks(response, with_usage)), "[DONE]"]:
            data = f"data: {event}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _fail(self, status: int, message: str) -> None:
        self._send(status, {"error": {"message": message, "type": "loopback", "code": status}})

    def _send(self, status: int, body: Any) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""
