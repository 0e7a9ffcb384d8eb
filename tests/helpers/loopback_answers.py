"""What the loopback server says: unscripted answers, and the OpenAI format around any answer. Tokens are words."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["DefaultAnswers", "Refused", "chunks", "complete", "count_first"]


class Refused(Exception):
    """The scripted answer was a status and a body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"status {status}")
        self.status, self.body = status, body


class DefaultAnswers:
    """Answers that follow from the request, each different from the ones before.

    With a seed, or at temperature 0, the same request gets the same answers again.
    """

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any], number: int) -> str:
        """Answer; what a ``response_format`` asks for is valid JSON of that shape."""
        about = json.dumps([request["messages"], request.get("seed"), request.get("response_format")])
        with self._lock:
            turn = self._asked[about]
            self._asked[about] += 1
        if request.get("temperature") == 0:
            turn = 0
        elif request.get("seed") is not None:
            turn %= request.get("n") or 1
        mark = _digest(f"{about}|{turn}")[:8]
        form = request.get("response_format") or {}
        if form.get("type") == "json_schema":
            return json.dumps(_instance(form["json_schema"].get("schema") or {}, mark))
        if form.get("type") == "json_object":
            return json.dumps({"answer": mark})
        return f"Answer {mark} to: {_last_words(request['messages'])}"


def complete(
    request: Mapping[str, Any], n: int, answer: Callable[[dict[str, Any], int], Any], number: Callable[[], int]
) -> dict[str, Any]:
    """Return a chat completion with ``n`` choices.

    Raises:
        Refused: The scripted answer fails the request.
    """
    choices = [_choice(request, place, answer(dict(request), number())) for place in range(n)]
    prompt = sum(len(str(m.get("content") or "").split()) for m in request["messages"])
    written = sum(_tokens(c["message"]) for c in choices)
    return {
        "id": f"chatcmpl-{_digest(json.dumps(choices))}",
        "object": "chat.completion",
        "created": 0,
        "model": request.get("model") or "smol",
        "choices": choices,
        "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
    }


def count_first(response: dict[str, Any]) -> None:
    """Report the first choice's tokens for all."""
    usage, written = response["usage"], _tokens(response["choices"][0]["message"])
    usage |= {"completion_tokens": written, "total_tokens": usage["prompt_tokens"] + written}


def chunks(response: Mapping[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """Split a completion into the events of a stream: one word at a time, the choices in turn."""
    head = {key: response[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}

    def event(place: int, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": place, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**head, "choices": [choice], **({"usage": None} if with_usage else {})}

    for choice in response["choices"]:
        place, message = choice["index"], choice["message"]
        yield event(place, {"role": "assistant", "content": ""})
        for word in _words(message.get("content") or ""):
            yield event(place, {"content": word})
        if calls := message.get("tool_calls"):
            yield event(place, {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]})
        yield event(place, {}, choice["finish_reason"])
    if with_usage:
        yield {**head, "choices": [], "usage": response["usage"]}


def _choice(request: Mapping[str, Any], place: int, answer: Any) -> dict[str, Any]:
    if isinstance(answer, tuple):
        raise Refused(*answer)
    scripted = {"content": answer} if isinstance(answer, str) else dict(answer)
    finish, tokens = scripted.pop("finish_reason", None), scripted.pop("logprobs", None)
    message: dict[str, Any] = {"role": "assistant", "content": None, **scripted}
    if message.get("tool_calls"):
        message["tool_calls"] = [_call(call, i) for i, call in enumerate(message["tool_calls"])]
        finish = finish or "tool_calls"
    words = _words(message["content"] or "")
    limit = request.get("max_completion_tokens") or request.get("max_tokens") or math.inf
    if len(words) > limit:
        words, finish = words[: int(limit)], finish or "length"
        message["content"] = "".join(words)
    shown = _logprobs(tokens or _likely(words), request.get("top_logprobs") or 0) if request.get("logprobs") else None
    return {"index": place, "message": message, "finish_reason": finish or "stop", "logprobs": shown}


def _call(call: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Fill up ``{"name": ..., "arguments": {...}}`` to the full form of a tool call, which passes as it is."""
    if "function" in call:
        return {"id": f"call_{place}", "type": "function", **call}
    arguments = call.get("arguments", {})
    function = {"name": call["name"], "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}
    return {"id": f"call_{place}", "type": "function", "function": function}


def _likely(words: list[str]) -> list[dict[str, float]]:
    """Return, for each word, how likely it was: the text decides, and Yes and No are always among the alternatives."""
    rows = []
    for place, word in enumerate(words):
        share = int(_digest(f"{place}|{''.join(words)}")[:4], 16) / 0x10000
        odds = {"Yes": 0.1 + 0.4 * share, "No": 0.5 - 0.4 * share}
        rows.append({word: math.log(0.4), **{w: math.log(p) for w, p in odds.items() if w != word.strip()}})
    return rows


def _logprobs(rows: list[dict[str, float]], top: int) -> dict[str, Any]:
    """Write token-to-logprob dicts in the OpenAI form; the first entry of each is the token that was written."""
    shown = []
    for row in rows:
        entries = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in row.items()]
        best = sorted(entries, key=lambda entry: -float(str(entry["logprob"])))[:top]
        shown.append({**entries[0], "top_logprobs": best})
    return {"content": shown, "refusal": None}


def _instance(schema: Mapping[str, Any], mark: str, root: Mapping[str, Any] | None = None) -> Any:
    """Return the smallest value a JSON schema allows, its strings made of ``mark``."""
    root = root or schema
    if "$ref" in schema:
        found: Any = root
        for key in schema["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        return _instance(found, mark, root)
    if "enum" in schema:
        return schema["enum"][int(mark, 16) % len(schema["enum"])]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return _instance(schema["anyOf"][0], mark, root)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: _instance(sub, f"{mark[:6]}{i:02x}", root) for i, (name, sub) in enumerate(_properties(schema))}
    if kind == "array":
        return [_instance(schema.get("items") or {}, mark, root)]
    if kind in ("integer", "number"):
        return schema.get("minimum", int(mark, 16) % 10)
    return {"boolean": int(mark, 16) % 2 == 0, "null": None}.get(str(kind), f"text {mark}")


def _properties(schema: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list((schema.get("properties") or {}).items())


def _words(text: str) -> list[str]:
    """Return a text's tokens: words with the space before them; joined they are the text, but for space at its end."""
    return re.findall(r"\s*\S+", text)


def _tokens(message: Mapping[str, Any]) -> int:
    calls = message.get("tool_calls") or ()
    return len(_words(message.get("content") or "")) + sum(len(_words(json.dumps(c["function"]))) for c in calls)


def _last_words(messages: list[dict[str, Any]]) -> str:
    content = messages[-1].get("content") or ""
    text = content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content)
    return " ".join(text.split())[-60:]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
