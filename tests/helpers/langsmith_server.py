"""What LangSmith's client talks to, on 127.0.0.1: it takes runs and feedback as LangSmith does, and keeps them."""

from __future__ import annotations

import json
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["LangSmithServer"]

PROJECT = "11111111-2222-4333-8444-555555555555"

INFO = {
    "version": "0.13.0",
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "size_limit": 20,
        "size_limit_bytes": 1_000_000,
        "scale_up_qsize_trigger": 1000,
        "scale_up_nthreads_limit": 16,
        "scale_down_nempty_trigger": 4,
    },
}


class LangSmithServer:
    """Serve while the ``with`` block runs.

    Args:
        batched: Whether feedback comes with the runs, as of version 0.8.10; else by a request each.
        knows: Whether it knows the project that the runs are of.
    """

    def __init__(self, *, batched: bool = True, knows: bool = True) -> None:
        """Set what is served; nothing listens yet."""
        self.knows = knows
        self.info = INFO if batched else {**INFO, "version": "0.8.0"}
        self.runs: dict[str, dict[str, Any]] = {}
        """What was sent of each run, by its id: the last value of each field."""
        self.feedback: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.bodies: list[str] = []
        """Whatever was sent, as it came, headers and addresses included; the client's own key left out."""
        self._lock = threading.Lock()

    def __enter__(self) -> LangSmithServer:
        """Listen on a free port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Return the address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the runs of this name."""
        return [run for run in self.runs.values() if run.get("name") == name]

    def take(self, path: str, headers: Any, body: bytes) -> None:
        """Keep what was sent."""
        shown = {k: v for k, v in headers.items() if k.lower() != "x-api-key"}
        with self._lock:
            self.paths.append(urlsplit(path).path)
            self.bodies.append(f"{path} {shown} {body.decode(errors='replace')}")
            if path.endswith("/multipart"):
                self._take_parts(headers["Content-Type"], body)
            elif path.endswith("/feedback"):
                self.feedback.append(json.loads(body))

    def _take_parts(self, kind: str, body: bytes) -> None:
        for part in message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body).get_payload():
            name = part.get_param("name", header="Content-Disposition")
            data = json.loads(part.get_payload(decode=True))
            what, run_id, *field = name.split(".")
            if what == "feedback":
                self.feedback.append(data)
            else:
                run = self.runs.setdefault(run_id, {})
                run.update({field[0]: data} if field else data)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: LangSmithServer

    def do_GET(self) -> None:
        """Tell what the server can, or which project has a name."""
        path = urlsplit(self.path).path
        self.owner.take(self.path, self.headers, b"")
        if path.endswith("/info"):
            self._send(self.owner.info)
        elif path.endswith("/sessions"):
            started = "2026-01-01T00:00:00+00:00"
            project = {"id": PROJECT, "name": "default", "tenant_id": PROJECT, "reference_dataset_id": None}
            self._send([{**project, "start_time": started}] if self.owner.knows else [])
        else:
            self._send({})

    def do_POST(self) -> None:
        """Take runs or feedback."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.owner.take(self.path, self.headers, body)
        self._send({})

    do_PATCH = do_POST

    def _send(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""
