"""Reward models behind a URL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tpo_core.effects import Pair, Reward
from tpo_core.errors import InvalidInputError, UnsupportedError
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.fanout import Portal, aeach, settle
from tpo_core.rewards.fleet import Fleet
from tpo_core.rewards.replica import Replica, check_alike, check_scores
from tpo_core.rewards.servers import SERVERS, Form, Item, Server, server_named
from tpo_core.rewards.wire import Wire

__all__ = ["RemoteRewardModel", "SelfTest"]

_GOOD = Pair("What is the capital of France?", "The capital of France is Paris, on the river Seine.")
_BAD = Pair("What is the capital of France?", "asdf qwer zxcv")
# Unlike enough that raw rewards differ, and do not all fall between 0 and 1.
_PROBES = (
    _GOOD,
    _BAD,
    Pair("How long do I boil an egg?", "Six minutes in boiling water for a soft yolk, ten for a hard one."),
    Pair("How long do I boil an egg?", "Go away, you idiot."),
)


@dataclass(frozen=True)
class SelfTest:
    """What one replica showed."""

    url: str
    server: str
    """Its kind; see ``tpo_core.rewards.servers``."""
    model: str
    scores: tuple[float, ...]
    """Of a good and a bad answer to one question, then to another."""

    @property
    def prefers_good(self) -> bool:
        """Say whether both good answers beat the bad ones: false for most models that are no reward models."""
        return self.scores[0] > self.scores[1] and self.scores[2] > self.scores[3]


class RemoteRewardModel(RewardModel):
    """A reward model on a server: vLLM, SGLang, text-embeddings-inference, OpenRLHF, or any JSON endpoint.

    What kind of server it is, is found out from the server. Given the model's tokenizer, template and tokens are made
    here and token ids are sent, so that no server's defaults (a second BOS, another template) change the score. Raw
    logits are asked for, and each replica must show them in a self-test before its first score is used.

    Requests go to the least busy of several replicas. What may pass (a lost connection, a time-out, 429, 5xx) is tried
    again, on another replica where there is one, with growing waits. A batch that fails for good costs only its pairs.

    Args:
        url: Where the server is, or a list of replicas of one model: ``http://host:8000``, without a path.
        model: The name under which it is served; found out from the server by default.
        server: ``auto``, or a kind from ``tpo_core.rewards.servers``.
        tokenizer: The reward model's own: a transformers tokenizer, or a name or folder to load it from.
        text: A function that writes a pair as the one text the model was trained on, for servers that take text.
        request: For a JSON endpoint of your own, at ``url`` as it stands: makes the body of a list of pairs.
        parse: For such an endpoint: reads its answer into one number per pair.
        label: Which number is the score, where the model has several.
        raw: Whether scores must be raw logits; False accepts a model whose own scale is 0..1.
        max_tokens: The model's longest input, in tokens; needs a tokenizer. None leaves it to the server to refuse.
        on_long: ``error``, or ``middle`` to cut the middle of prompts that are too long (``Reward.truncated`` says so).
        batch_size: Responses in one request, where the server takes several.
        workers: Requests under way at once.
        timeout: Seconds to wait for one answer.
        retries: Further tries of one request.
        backoff: Seconds before the first of them; the wait doubles each time, at random up to that, 30 at most.
        headers: Sent with each request, such as ``{"Authorization": "Bearer ..."}``.
        name: How errors and feedback keys call it.

    Raises:
        InvalidInputError: An argument is wrong.
        UnsupportedError: When scoring: the server is of no known kind, or takes nothing that can be made here.
        RewardError: When scoring: no replica could score anything; the message names the URL.

    Example:
        reward = RemoteRewardModel("http://127.0.0.1:8000", tokenizer="Skywork/Skywork-Reward-V2-Qwen3-8B")
        reward.score("What is 2+2?", ["4", "5"])
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        model: str | None = None,
        server: str = "auto",
        tokenizer: Any = None,
        text: Callable[[Pair], str] | None = None,
        request: Callable[[list[Pair]], Any] | None = None,
        parse: Callable[[Any], Sequence[float]] | None = None,
        label: int | None = None,
        raw: bool = True,
        max_tokens: int | None = None,
        on_long: Literal["error", "middle"] = "error",
        batch_size: int = 32,
        workers: int = 16,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 0.5,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        urls = _urls(url)
        _at_least(1, batch_size=batch_size, workers=workers)
        _at_least(0, retries=retries, backoff=backoff, timeout=timeout)
        self.name = name or model or urls[0]
        self._wire = Wire(tokenizer, text, model=model, max_tokens=max_tokens, on_long=on_long)
        self._label = label
        self._raw = raw and request is None
        self._batch_size = batch_size
        self._workers = workers
        self._fleet = Fleet(
            urls,
            server=_chosen(server, request, parse),
            model=model,
            connections=workers,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            headers=dict(headers or {}),
        )
        self._portal = Portal()

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score on the servers; see ``RewardModel``."""
        return self._portal.run(self._score(pairs))

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score on the servers without blocking."""
        # Connections belong to one event loop: this one, whichever loop the caller runs.
        return await asyncio.wrap_future(self._portal.submit(self._score(pairs)))

    def selftest(self) -> list[SelfTest]:
        """Test every replica now, rather than at its first use.

        Raises:
            UnsupportedError: One squashes scores or scores all answers alike, or two differ.
        RewardError: One cannot be reached.
        """
        return self._portal.run(self._test_all())

    def close(self) -> None:
        """Close all connections; the next score opens new ones."""
        self._portal.run(self._fleet.disconnect())
        self._portal.close()

    async def _test_all(self) -> list[SelfTest]:
        found = [await self._test(replica) for replica in self._fleet.replicas()]
        check_alike(self._fleet.replicas())
        return found

    async def _score(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score in the portal's loop: write each pair for the wire, cut into requests, send, put back in order."""
        written = await asyncio.to_thread(self._wire.items, pairs)
        items = {i: w for i, w in enumerate(written) if isinstance(w, Item)}
        found: dict[int, Reward | Exception] = {i: w for i, w in enumerate(written) if isinstance(w, Exception)}
        if items:
            server = await self._fleet.trying(lambda replica: replica.recognise())
            form = _form(server, next(iter(items.values())), self.name)
            batches = server.batches(items, form, self._batch_size)
            answers = await aeach(lambda b: self._send(form, [items[i] for i in b]), batches, self._workers)
            for batch, answer in zip(batches, answers, strict=True):
                each = [answer] * len(batch) if isinstance(answer, Exception) else answer
                found |= dict(zip(batch, each, strict=True))
        return settle([found[i] for i in range(len(pairs))], self.name)

    async def _send(self, form: Form, items: Sequence[Item]) -> list[Reward]:
        async def once(replica: Replica) -> list[list[float]]:
            await self._prepare(replica)
            return await replica.scores(form, items)

        numbers = await self._fleet.trying(once)
        return [self._reward(n, item) for n, item in zip(numbers, items, strict=True)]

    async def _prepare(self, replica: Replica) -> None:
        async with replica.setup:
            if not replica.ready:
                if self._raw:
                    await self._test(replica)
                    check_alike(self._fleet.replicas())
                await replica.recognise()
                replica.ready = True

    async def _test(self, replica: Replica) -> SelfTest:
        server = await replica.recognise()
        items: dict[int, Item] = {}
        for i, written in enumerate(await asyncio.to_thread(self._wire.items, _PROBES)):
            if isinstance(written, Exception):
                raise written
            items[i] = written
        scores: dict[int, float] = {}
        form = _form(server, items[0], self.name)
        for batch in server.batches(items, form, self._batch_size):
            numbers = await replica.scores(form, [items[i] for i in batch])
            scores |= {i: float(self._reward(n, items[i])) for i, n in zip(batch, numbers, strict=True)}
        found = tuple(scores[i] for i in range(len(items)))
        if self._raw:
            check_scores(found, replica.url)
            replica.shown = found
        return SelfTest(replica.url, server.name, replica.model or "", found)

    def _reward(self, numbers: Sequence[float], item: Item) -> Reward:
        if len(numbers) == 1 and self._label is None:
            return Reward(numbers[0], truncated=item.truncated)
        if self._label is None or not -len(numbers) <= self._label < len(numbers):
            raise UnsupportedError(
                f"reward model {self.name!r} answers with {len(numbers)} numbers; say which is the score with label="
            )
        heads = {str(i): n for i, n in enumerate(numbers)}
        return Reward(numbers[self._label], heads=heads, truncated=item.truncated)


def _form(server: Server, item: Item, name: str) -> Form:
    form = server.form_of(item)
    if form is None:
        raise UnsupportedError(
            f"{server.name} takes {' or '.join(server.forms)}, which reward model {name!r} cannot make: "
            "give tokenizer=, the reward model's own, or text=, which writes a pair as one text"
        )
    return form


def _chosen(server: str, request: Any, parse: Any) -> Server | None:
    """Return the server that was named, None for one to be found out."""
    if (request is None) != (parse is None):
        raise InvalidInputError(
            "request and parse go together: one writes what your endpoint takes, one reads its answer"
        )
    if request is not None:
        return Server(
            name="json",
            path="",
            forms=("messages",),
            body=lambda model, form, items: request([i.pair for i in items]),
            read=lambda answer: [[float(score)] for score in parse(answer)],
        )
    if server == "auto":
        return None
    if (found := server_named(server)) is None:
        names = ", ".join(repr(s.name) for s in SERVERS)
        raise InvalidInputError(f"server must be 'auto' or one of {names}, not {server!r}")
    return found


def _urls(url: str | Sequence[str]) -> list[str]:
    urls = [url] if isinstance(url, str) else list(url)
    if not urls or not all(isinstance(u, str) and u.startswith(("http://", "https://")) for u in urls):
        raise InvalidInputError(f"url must be one or several of the form http://host:port, not {url!r:.120}")
    return [u.rstrip("/") for u in urls]


def _at_least(least: int, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:
            raise InvalidInputError(f"{name} must be at least {least}, not {value}")
