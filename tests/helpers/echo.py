"""A server on 127.0.0.1 that tells whoever asks what it was sent: address, headers and all, as bad gateways do."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["KEY", "PASSWORD", "TOKEN", "check_nothing_leaks", "echoing", "everything_said"]

KEY = "sk-canary-0123456789abcdef"
PASSWORD = "PW-canary/+é"
TOKEN = "tok%2Dcanary-77"

_CANARY = "canary"


@contextmanager
def echoing(status: int) -> Iterator[str]:
    """Serve; yields ``127.0.0.1:PORT``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = f"you sent {dict(self.headers)} to {self.path}, Authorization: {self.headers.get('Authorization')}"
            body = json.dumps({"error": {"message": said, "type": "echo", "code": self.headers.get("x-api-key")}})
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def everything_said(error: BaseException) -> str:
    """Return what is shown of an exception by whatever shows one, its causes and its fields included."""
    said = ["".join(traceback.format_exception(type(error), error, error.__traceback__))]
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        texts = [value for value in vars(link).values() if type(value) in (str, list, dict)]
        said += [repr(link), str(link), repr(link.args), str(texts)]
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    said += [everything_said(cause) for cause in getattr(error, "causes", ())]
    if (trajectory := getattr(error, "trajectory", None)) is not None:
        said += [trajectory.to_json(), repr(trajectory)]
    return "\n".join(said)


def check_nothing_leaks(*texts: str) -> None:
    """Fail where a text holds a canary, and show what stands around it."""
    for text in texts:
        for form in (_CANARY, "Y2FuYXJ5", "NhbmFye", "jYW5hcn"):  # as it is, and the three ways base64 may write it
            place = text.find(form)
            assert place < 0, text[max(0, place - 200) : place + 40]
