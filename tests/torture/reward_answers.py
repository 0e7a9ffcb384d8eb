"""Damaged answers of reward servers, through sockets: a clear error, or the right score, and never another's score."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

from reward_servers import OpenRlhf, Sglang, Tei, Vllm, serving

from tpo_core.errors import InvalidInputError, RewardError, UnsupportedError
from tpo_core.rewards import RemoteRewardModel

__all__ = ["reward_answers"]

SERVERS: dict[str, Callable[[], Any]] = {
    "vllm": Vllm, "vllm-pooling": Vllm, "sglang": Sglang, "tei": Tei, "openrlhf": OpenRlhf,
}  # fmt: skip

ODD = (
    None, True, False, -1, 777.25, 2**70, 10**400, 1e999, -math.inf, math.nan, "", "5", "NaN", "\ud800", [], {},
    [[]], [[777.25, 777.25]], [777.25], [None], {"score": 777.25}, "x" * 100_000,
)  # fmt: skip
"""What is put in some place of an answer; a number among it is what that place then says."""

SAID = {777.25, -1.0, float(2**70)}
"""Numbers among them."""

BODIES = (
    b"", b"<html><script>alert(1)</script></html>", b"null", b"[", b"[" * 100_000, b"[" * 900 + b"1" + b"]" * 900,
    b"\xff\xfe", b'"text"', b"12", b"NaN", b"[]", b"{}", b'{"data": []}', b'{"rewards": {"0": 1}}', b"[[[[]]]]",
)  # fmt: skip

RESPONSES = ("a", "bc", "def", "some words")


def reward_answers(seed: int, seen: Counter[str]) -> None:
    """Score by a server whose answer is damaged by the seed."""
    draw = random.Random(seed)
    name = list(SERVERS)[seed % len(SERVERS)]
    reward, served = _reward(name)
    texts = [f"{text} {seed}" for text in RESPONSES[: draw.randrange(1, 5)]]
    right = [float(r) for r in reward.score("Why?", texts)]
    served.damage = lambda answer: _damaged(draw, answer, by_index=name.startswith("vllm"))
    try:
        found = [float(r) for r in reward.score("Why?", texts)]
    except (RewardError, InvalidInputError, UnsupportedError) as error:
        assert str(error).strip() and "\n" not in str(error), f"not one line: {error!r}"  # noqa: PT017
        assert len(str(error)) < 2000, "an error as long as the answer"  # noqa: PT017
        seen["refused"] += 1
    else:
        assert len(found) == len(texts)
        for value, own in zip(found, right, strict=True):
            assert math.isnan(value) or math.isinf(value) or value == own or value in SAID, (
                f"{name}: {value} in place of {own}, of {right}"
            )
        seen["scored"] += 1
    finally:
        served.damage = None


class _Served:
    """An app, and what is done to its answers."""

    damage: Callable[[Any], tuple[int, str, bytes]] | None = None

    def __init__(self, app: Any) -> None:
        self.app = app
        self.running = serving(app, self.fault)  # which ends when nobody holds it

    def fault(self, number: int, path: str, body: Any) -> tuple[int, str, bytes] | None:
        answer = None if self.damage is None else self.app.post(path, body)
        return None if answer is None or self.damage is None else self.damage(answer)


@cache
def _reward(name: str) -> tuple[RemoteRewardModel, _Served]:
    """Return a server and its client, which are there until the process ends."""
    served = _Served(SERVERS[name]())
    url, _ = served.running.__enter__()
    reward = RemoteRewardModel(
        url, server=name, text=lambda pair: f"{pair.prompt}{pair.response}", retries=0, backoff=0.0, timeout=20.0
    )
    reward.check()
    return reward, served


def _damaged(draw: random.Random, answer: Any, *, by_index: bool) -> tuple[int, str, bytes]:
    kind = draw.randrange(8)
    if kind == 0:
        return 200, draw.choice(["application/json", "text/html"]), draw.choice(BODIES)
    if kind == 1:
        return draw.choice([400, 401, 404, 422, 429, 500, 503]), "application/json", draw.choice(BODIES)
    answer = deepcopy(answer)
    entries = _entries(answer)
    if kind == 2 and by_index:
        draw.shuffle(entries)
    elif kind == 3:
        del entries[draw.randrange(len(entries)) :]
    elif kind == 4:
        entries.append(deepcopy(draw.choice(entries)))
    else:
        for _ in range(draw.randrange(1, 4)):
            _change(draw, answer)
    data = json.dumps(answer).encode()
    return 200, "application/json", data[: draw.randrange(len(data))] if draw.random() < 0.1 else data


def _entries(answer: Any) -> list[Any]:
    if isinstance(answer, list):
        return answer
    entries: list[Any] = answer.get("data") or answer["rewards"]
    return entries


def _change(draw: random.Random, data: Any) -> None:
    """Put something odd in some place, or take it away there; entries of a list are not taken from its middle."""
    while True:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        if not keys:
            return
        key = draw.choice(keys)
        inner = data[key]
        if not isinstance(inner, (dict, list)) or not inner or draw.random() < 0.2:
            break
        data = inner
    if isinstance(data, dict) and draw.random() < 0.3:
        del data[key]
    else:
        data[key] = deepcopy(draw.choice(ODD))
