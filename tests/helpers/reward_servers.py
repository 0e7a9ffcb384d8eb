"""Small real HTTP servers that answer as reward servers do: the same paths, the same JSON, the same traps."""

import json
import math
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "org/reward"


def raw(shown):
    """Return a reward between -3 and 7 that depends on every token or character that was sent, and its place."""
    codes = shown if isinstance(shown, list) else [ord(c) for c in shown]
    return sum(code * (i + 1) for i, code in enumerate(codes)) % 997 / 100 - 3.0


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -30 else 0.0


def shown_messages(messages):
    return "".join(f"<{m['role']}>{m['content']}" for m in messages)


class Refusal(Exception):
    """What a server answers with another status than 200: ``Refusal(status, body)``."""


class Vllm:
    """vLLM 0.32: one-label models are squashed unless the knob, whose name changed over the versions, says no."""

    longest = 4096

    def __init__(self, knob="use_activation", obey=True):
        self.knob, self.obey = knob, obey

    def get(self, path):
        models = {
            "object": "list",
            "data": [
                {
                    "id": MODEL,
                    "object": "model",
                    "created": 1795401995,
                    "owned_by": "vllm",
                    "root": "/models/reward",
                    "parent": None,
                    "max_model_len": self.longest,
                    "permission": [{"id": "modelperm-88", "object": "model_permission", "organization": "*"}],
                }
            ],
        }
        return {"/version": {"version": "0.32.0"}, "/v1/models": models}.get(path)

    def _refuse(self, status, kind, message, param=None):
        raise Refusal(status, {"error": {"message": message, "type": kind, "param": param, "code": status}})

    def _scores(self, body):
        if body.get("model") not in (None, "", MODEL):
            self._refuse(404, "NotFoundError", f"The model `{body['model']}` does not exist.")
        shown = [shown_messages(body["messages"])] if "messages" in body else body["input"]
        for item in shown:
            if len(item) > self.longest:
                message = f"This model's maximum context length is {self.longest} tokens. However, your prompt contains"
                self._refuse(400, "BadRequestError", f"{message} {len(item)} input tokens", "input_tokens")
        values = [raw(s) for s in shown]
        return values if self.obey and body.get(self.knob) is False else [sigmoid(v) for v in values]

    def post(self, path, body):
        if path not in ("/classify", "/pooling"):
            return None
        scores = self._scores(body)
        if path == "/classify":
            data = [{"index": i, "label": "LABEL_0", "probs": [s], "num_classes": 1} for i, s in enumerate(scores)]
        else:
            assert body["task"] == "classify"
            data = [{"index": i, "object": "pooling", "data": [s]} for i, s in enumerate(scores)]
        usage = {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": 0, "prompt_tokens_details": None}
        name = path[1:]
        return {
            "id": f"{name}-be8164",
            "object": "list",
            "created": 1795401995,
            "model": MODEL,
            "data": data,
            "usage": usage,
        }


class Sglang:
    """SGLang 0.5: raw on its own /classify and /v1/score; its /v1/classify softmaxes one label to 1.0.

    ``/get_model_info`` is the older name of ``/model_info``, and will go.
    """

    longest = 4096

    def __init__(self, about=("/model_info", "/get_model_info"), generates=False):
        self.about, self.generates = about, generates

    def get(self, path):
        info = {
            "model_path": "/models/reward",
            "served_model_name": MODEL,
            "tokenizer_path": "/models/reward",
            "is_generation": self.generates,
            "weight_version": "default",
            "model_type": "llama",
            "architectures": ["LlamaForSequenceClassification"],
        }
        model = {"id": MODEL, "object": "model", "created": 1795402757, "owned_by": "sglang", "root": MODEL}
        models = {"object": "list", "data": [{**model, "parent": None, "max_model_len": self.longest}]}
        return info if path in self.about else models if path == "/v1/models" else None

    def _check(self, items):
        for item in items:
            if len(item) > self.longest:
                message = f"The input ({len(item)} tokens) is longer than the model's context length"
                raise Refusal(400, {"error": {"message": f"{message} ({self.longest} tokens)."}})

    def post(self, path, body):
        if path == "/classify":
            items = body.get("input_ids") or body["text"]
            single = not isinstance(items, list) or not isinstance(items[0], (list, str))
            items = [items] if single else items
            self._check(items)
            about = {"id": "75e4", "finish_reason": {"type": "length", "length": 0}, "prompt_tokens": 3}
            out = [{"embedding": [raw(i)], "meta_info": about} for i in items]
            return out[0] if single else out
        if path == "/v1/score":
            whole = [body["query"] + i for i in body["items"]]
            self._check(whole)
            scores = [[1.0 if body.get("apply_softmax") else raw(i)] for i in whole]
            return {"scores": scores, "pooled_hidden_states": None, "model": body["model"], "object": "scoring"}
        if path == "/v1/classify":
            return {"data": [{"index": 0, "label": "LABEL_0", "probs": [1.0], "num_classes": 1}]}
        return None


class Tei:
    """text-embeddings-inference 1.9: one label makes a "reranker", several a "classifier"; the highest comes first."""

    def __init__(self, obey=True, labels=("LABEL_0",), most=32, kind=None):
        self.obey, self.labels, self.most = obey, labels, most
        self.kind = kind or ("reranker" if len(labels) == 1 else "classifier")

    def get(self, path):
        labels = {
            "id2label": {str(i): name for i, name in enumerate(self.labels)},
            "label2id": {name: i for i, name in enumerate(self.labels)},
        }
        info = {
            "model_id": MODEL,
            "model_sha": None,
            "model_dtype": "float32",
            "served_model_name": MODEL,
            "model_type": {self.kind: {"pooling": "cls"} if self.kind == "embedding" else labels},
            "max_concurrent_requests": 512,
            "max_input_length": 512,
            "max_batch_tokens": 16384,
            "max_batch_requests": None,
            "max_client_batch_size": self.most,
            "auto_truncate": True,
            "tokenization_workers": 4,
            "version": "1.9.0",
            "sha": None,
            "docker_label": None,
        }
        return {"/info": info}.get(path)

    def _refuse(self, status, kind, message):
        raise Refusal(status, {"error": message, "error_type": kind})

    def numbers(self, text):
        """Return the score of each label, in the model's order."""
        return [raw(text) + i for i, _ in enumerate(self.labels)]

    def post(self, path, body):
        if path != "/predict":
            return None
        inputs = body["inputs"]
        single = isinstance(inputs, str) or isinstance(inputs[0], str)  # a flat list of two texts is ONE pair
        items = [[inputs] if isinstance(inputs, str) else inputs] if single else inputs
        if len(items) > self.most:
            size = f"batch size {len(items)} > maximum allowed batch size {self.most}"
            self._refuse(422, "Validation", size)
        out = []
        for item in items:
            assert 1 <= len(item) <= 2 and all(isinstance(text, str) for text in item)
            values = self.numbers("".join(item))
            values = values if self.obey and body.get("raw_scores") else [sigmoid(v) for v in values]
            rows = [{"score": v, "label": label} for v, label in zip(values, self.labels, strict=True)]
            out.append(sorted(rows, key=lambda row: -row["score"]))
        return out[0] if single else out


class OpenRlhf:
    """OpenRLHF's serve_rm: a FastAPI application with this one path, which cuts long texts without a word."""

    def get(self, path):
        operation = {"summary": "Get Reward", "operationId": "get_reward_get_reward_post", "responses": {}}
        about = {"openapi": "3.1.0", "info": {"title": "FastAPI", "version": "0.1.0"}}
        return {"/openapi.json": {**about, "paths": {"/get_reward": {"post": operation}}}}.get(path)

    def post(self, path, body):
        if path != "/get_reward":
            return None
        rewards = [raw(q[:2048]) for q in body["query"]]
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

    ``fault(number, path, body)`` may return ``(status, content type, bytes[, headers])`` instead, by the number of the
    post. ``posts.headers`` and ``posts.got`` hold the headers of every request, and the paths that were asked with GET.
    """
    posts, lock = Posts(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            with lock:
                posts.got.append(self.path)
            self._send(lambda: app.get(self.path))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                posts.append((self.path, body))
                number = len(posts)
            instead = fault(number, self.path, body) if fault else None
            if instead is not None:
                return self._reply(*instead)
            return self._send(lambda: app.post(self.path, body))

        def _send(self, find):
            with lock:
                posts.headers.append(dict(self.headers))
            try:
                status, answer = 200, find()
            except Refusal as refusal:
                status, answer = refusal.args
            if answer is None:
                status, answer = 404, {"detail": "Not Found"}
            return self._reply(status, "application/json", json.dumps(answer).encode())

        def _reply(self, status, kind, data, headers=()):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # a client that gave up
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.request_queue_size = 128
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", posts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Posts(list):
    """What was posted, as (path, body)."""

    def __init__(self):
        super().__init__()
        self.headers, self.got = [], []
