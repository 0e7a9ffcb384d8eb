"""Small real HTTP servers that answer as reward servers do: the same paths, the same JSON, the same traps."""

import json
import math
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

MODEL = "org/reward"


def raw(shown):
    """Return a reward between -3 and 7 that depends on every token or character that was sent, and its place."""
    codes = shown if isinstance(shown, list) else [ord(c) for c in shown]
    return sum(code * (i + 1) for i, code in enumerate(codes)) % 997 / 100 - 3.0


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -30 else 0.0


def shown_messages(messages):
    return "".join(f"<{m['role']}>{m['content']}" for m in messages)


class Vllm:
    """vLLM: one-label models are squashed unless the knob, whose name changed over the versions, says no."""

    def __init__(self, knob="use_activation", obey=True):
        self.knob, self.obey = knob, obey

    def get(self, path):
        models = {
            "object": "list",
            "data": [{"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 4096}],
        }
        return {"/version": {"version": "0.33.0"}, "/v1/models": models}.get(path)

    def _scores(self, body):
        assert body["model"] == MODEL
        shown = [shown_messages(body["messages"])] if "messages" in body else body["input"]
        values = [raw(s) for s in shown]
        return values if self.obey and body.get(self.knob) is False else [sigmoid(v) for v in values]

    def post(self, path, body):
        scores = self._scores(body)
        if path == "/classify":
            data = [{"index": i, "label": "LABEL_0", "probs": [s], "num_classes": 1} for i, s in enumerate(scores)]
        elif path == "/pooling":
            assert body["task"] == "classify"
            data = [{"index": i, "object": "pooling", "data": [s]} for i, s in enumerate(scores)]
        else:
            return None
        return {"id": "classify-1", "object": "list", "created": 1, "model": MODEL, "data": data[::-1], "usage": {}}


class Sglang:
    """SGLang: raw on its own /classify and /v1/score; its /v1/classify softmaxes one label to 1.0."""

    def get(self, path):
        models = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "sglang"}]}
        return {"/get_model_info": {"model_path": MODEL, "is_generation": False}, "/v1/models": models}.get(path)

    def post(self, path, body):
        if path == "/classify":
            items = body.get("input_ids") or body["text"]
            out = [{"embedding": [raw(i)], "meta_info": {"prompt_tokens": len(i)}} for i in items]
            return out[0] if len(out) == 1 else out
        if path == "/v1/score":
            return {"scores": [[raw(body["query"] + i)] for i in body["items"]], "object": "scoring"}
        if path == "/v1/classify":
            return {"data": [{"index": i, "probs": [1.0]} for i, _ in enumerate(body["input"])]}
        return None


class Tei:
    """text-embeddings-inference: a flat list of two strings would be ONE pair."""

    def __init__(self, obey=True):
        self.obey = obey

    def get(self, path):
        info = {"model_id": MODEL, "model_type": {"classifier": {"id2label": {"0": "LABEL_0"}}}, "version": "1.7.1"}
        return {"/info": info}.get(path)

    def post(self, path, body):
        if path != "/predict":
            return None
        assert all(isinstance(i, list) and len(i) == 2 for i in body["inputs"])
        values = [raw("".join(i)) for i in body["inputs"]]
        values = values if self.obey and body["raw_scores"] else [sigmoid(v) for v in values]
        return [[{"score": v, "label": "LABEL_0"}] for v in values]


class OpenRlhf:
    """OpenRLHF's serve_rm: a FastAPI application with this one path."""

    def get(self, path):
        return {"/openapi.json": {"openapi": "3.1.0", "paths": {"/get_reward": {"post": {}}}}}.get(path)

    def post(self, path, body):
        if path != "/get_reward":
            return None
        rewards = [raw(q) for q in body["query"]]
        return {"rewards": rewards, "scores": rewards, "extra_logs": {"dummy_scores": rewards}}


class Mine:
    """An endpoint of someone's own."""

    def get(self, path):
        return None

    def post(self, path, body):
        return {"result": {"values": [raw(x["a"]) for x in body["rows"]]}} if path == "/my/rm" else None


class Constant(Vllm):
    """A server that answers 1.0 whatever it is asked, as SGLang's /v1/classify does with one label."""

    def _scores(self, body):
        return [1.0] * len(body.get("input") or [0])


@contextmanager
def serving(app, fault=None):
    """Serve an app on loopback; yields its URL and the list of (path, body) posted to it.

    ``fault(number, path, body)`` may return ``(status, content type, bytes)`` instead, by the number of the post.
    """
    posts, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            self._send(app.get(self.path))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                posts.append((self.path, body))
                number = len(posts)
            instead = fault(number, self.path, body) if fault else None
            if instead is not None:
                return self._reply(*instead)
            return self._send(app.post(self.path, body))

        def _send(self, answer):
            if answer is None:
                return self._reply(404, "application/json", b'{"detail":"Not Found"}')
            return self._reply(200, "application/json", json.dumps(answer).encode())

        def _reply(self, status, kind, data):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", posts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def fakes():
    """The servers above, and ``serving`` to run one."""
    kinds = (Vllm, Sglang, Tei, OpenRlhf, Mine, Constant)
    return SimpleNamespace(serving=serving, raw=raw, shown_messages=shown_messages, **{k.__name__: k for k in kinds})
