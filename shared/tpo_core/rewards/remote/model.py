"""Reward models behind a URL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tpo_core.errors import RewardError, UnsupportedError
from tpo_core.masking import public
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.concurrency import aeach, settle
from tpo_core.rewards.portal import Portal
from tpo_core.rewards.remote.exchange import AnswerError, TransientError
from tpo_core.rewards.remote.fleet import Fleet
from tpo_core.rewards.remote.replica import Replica
from tpo_core.rewards.remote.selftest import PROBES, SelfTest, check_alike, check_scores, shown
from tpo_core.rewards.remote.servers import Form, Item, Server
from tpo_core.rewards.remote.settings import cache_key, check_headers, check_numbers, check_urls, chosen_server
from tpo_core.rewards.remote.wire import Wire, form_for, uncut
from tpo_core.values import Pair, Reward

__all__ = ["RemoteRewardModel", "SelfTest"]

_DIVIDE = {400, 413, 422, 424, 500}  # for which one item, or their number, may be to blame


class RemoteRewardModel(RewardModel):
    """A reward model on a server: vLLM, SGLang, text-embeddings-inference, OpenRLHF, or any JSON endpoint.

    What kind of server it is, is found out from the server. Given the model's tokenizer, template and tokens are made
    here and token ids are sent, so that no server's defaults (a second BOS, another template) change the score. Raw
    logits are asked for, and each replica must show them in a self-test before its first score is used.

    Requests go to the least busy of several replicas. What may pass (a lost connection, a time-out, 429, 5xx) is tried
    again: at once on another replica that is well, else after what the server asks for or growing waits. A batch that
    is refused or breaks the server is sent again in halves, so that a response that is too long costs only itself.

    Args:
        url: Where the server is, or a list of replicas of one model: ``http://host:8000``, without a path.
        model: The name under which it is served; found out from the server by default.
        server: ``auto``, or a kind from ``tpo_core.rewards.remote.servers``.
        tokenizer: The reward model's own: a transformers tokenizer, or a name or folder to load it from.
        text: A function that writes a pair as the one text the model was trained on, for servers that take text.
        request: For a JSON endpoint of your own, at ``url`` as it stands: makes the body of a list of pairs.
        parse: For such an endpoint: reads its answer into one number per pair.
        label: Which number is the score, where the model has several.
        raw: Whether scores must be raw logits; False accepts a model whose own scale is 0..1.
        max_tokens: The model's longest input, in tokens; needs a tokenizer. None leaves it to the server to refuse, but
            refuses what a server would cut without a word.
        on_long: ``error``, or ``middle`` to cut the middle of prompts that are too long (``Reward.truncated`` says so).
        batch_size: Responses in one request, where the server takes several.
        workers: Requests under way at once.
        timeout: Seconds for one answer, from connecting to its last byte.
        retries: Further tries of one request.
        backoff: Seconds before the first of them; the wait doubles each time, at random up to that, 30 at most. A
            ``Retry-After`` of the server takes its place, up to ``timeout``.
        headers: Sent with each request, such as ``{"Authorization": "Bearer ..."}``, to the URL's host only.
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
        urls = check_urls(url)
        check_numbers(1, batch_size=batch_size, workers=workers)
        check_numbers(0, retries=retries, backoff=backoff)
        check_numbers(0.001, timeout=timeout)
        self.name = name or model or public(urls[0])
        self._wire = Wire(tokenizer, text, model=model, max_tokens=max_tokens, on_long=on_long)
        self._cache_key = cache_key(
            urls, check_headers(headers), (text, request, parse), tokenizer,
            model=model, server=server, label=label, raw=raw, max_tokens=max_tokens, on_long=on_long,
        )  # fmt: skip
        self._limited = max_tokens is not None
        self._label = label
        self._raw = raw and request is None
        self._batch_size = batch_size
        self._workers = workers
        self._fleet = Fleet(
            urls,
            server=chosen_server(server, request, parse),
            model=model,
            connections=workers,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            headers=check_headers(headers),
        )
        self._portal = Portal(self._fleet.disconnect)

    @property
    def cache_key(self) -> str | None:
        """Return the servers' and the model's; None where none of the arguments tells the model (``RewardModel``)."""
        return self._cache_key

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

    def check(self) -> None:
        """Reach for each replica once, until one is ready to score; see ``RewardModel.check``.

        A server that answers that it is busy, or not ready yet, may be by the time it is needed.
        """
        self._portal.run(self._check())

    async def acheck(self) -> None:
        """Reach for the replicas without blocking."""
        await asyncio.wrap_future(self._portal.submit(self._check()))

    async def _check(self) -> None:
        failures: list[RewardError | UnsupportedError] = []
        for replica in self._fleet.replicas():
            try:
                await replica.prepared(self._prepare)
                return
            except (RewardError, UnsupportedError) as error:
                if isinstance(error, TransientError) and error.status:
                    return
                failures.append(error)
        raise failures[0]

    def close(self) -> None:
        """Close all connections once the calls of other threads have ended; the next score opens new ones."""
        self._portal.run(self._leave())
        self._portal.close()

    async def _leave(self) -> None:
        while calls := asyncio.all_tasks() - {asyncio.current_task()}:  # of other threads: they get their scores
            await asyncio.wait(calls)
        await self._fleet.disconnect()

    async def _test_all(self) -> list[SelfTest]:
        found = [await self._test(replica) for replica in self._fleet.replicas()]
        check_alike(found)
        for replica in self._fleet.replicas():
            replica.ready = True
        return found

    async def _score(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score in the portal's loop: write each pair for the wire, cut into requests, send, put back in order."""
        written: Sequence[Item | Exception] = await asyncio.to_thread(self._wire.items, pairs)
        found: dict[int, Reward | Exception] = {}
        if any(isinstance(w, Item) for w in written):
            replica = await self._fleet.trying(self._ready)
            server = replica.kind
            form, written = await self._formed(server, written)
            items = {i: w for i, w in enumerate(written) if isinstance(w, Item)}
            batches = replica.batches(items, form, self._batch_size)
            answers = await aeach(lambda b: self._send(server, form, [items[i] for i in b]), batches, self._workers)
            for batch, answer in zip(batches, answers, strict=True):
                each = [answer] * len(batch) if isinstance(answer, Exception) else answer
                found |= dict(zip(batch, each, strict=True))
        refused = {i: w for i, w in enumerate(written) if isinstance(w, Exception)}
        return settle([(found | refused)[i] for i in range(len(pairs))], self.name)

    async def _formed(
        self, server: Server, written: Sequence[Item | Exception]
    ) -> tuple[Form, Sequence[Item | Exception]]:
        """Bring items into the form that is sent; one that cannot be becomes an error."""
        form = form_for(server, next(w for w in written if isinstance(w, Item)), self.name)
        if server.cuts and not self._limited:
            written = [uncut(server, w) if isinstance(w, Item) else w for w in written]
        return form, await asyncio.to_thread(self._wire.spelled, written) if form == "text" else written

    async def _send(self, server: Server, form: Form, items: Sequence[Item]) -> list[Reward | Exception]:
        """Send one request; when it is refused, halves of it, so that one item costs only itself."""
        answer = await self._ask(form, items)
        return await self._divided(server, form, items, answer) if isinstance(answer, Exception) else answer

    async def _divided(
        self, server: Server, form: Form, items: Sequence[Item], error: AnswerError | TransientError
    ) -> list[Reward | Exception]:
        if error.status not in _DIVIDE or len(items) == 1:
            return [error] * len(items)
        half = len(items) // 2
        parts = (items[:half], items[half:])
        answers = [await self._ask(form, part) for part in parts]
        broken = error.status == 500 and all(isinstance(answer, Exception) for answer in answers)
        if broken and (half == 1 or not await self._works(server, form)):
            return [error] * len(items)  # it is the server, which would take its time to fail on each
        found: list[Reward | Exception] = []
        for part, answer in zip(parts, answers, strict=True):
            found += await self._divided(server, form, part, answer) if isinstance(answer, Exception) else answer
        return found

    async def _works(self, server: Server, form: Form) -> bool:
        """Return whether something harmless is scored."""
        _, [probe] = await self._formed(server, await asyncio.to_thread(self._wire.items, PROBES[:1]))
        return isinstance(probe, Item) and not isinstance(await self._ask(form, [probe]), Exception)

    async def _ask(self, form: Form, items: Sequence[Item]) -> list[Reward | Exception] | AnswerError | TransientError:
        async def once(replica: Replica) -> list[list[float]]:
            await replica.prepared(self._prepare)
            return await replica.scores(form, items)

        try:
            numbers = await self._fleet.trying(once)
        except (AnswerError, TransientError) as error:
            return error
        return [self._reward(n, item) for n, item in zip(numbers, items, strict=True)]

    async def _ready(self, replica: Replica) -> Replica:
        await replica.prepared(self._prepare)
        return replica

    async def _prepare(self, replica: Replica) -> None:
        await replica.recognise()
        if self._raw:
            await self._test(replica)
            check_alike([r.shown for r in self._fleet.replicas() if r.shown is not None])

    async def _test(self, replica: Replica) -> SelfTest:
        server = await replica.recognise()
        probes = await asyncio.to_thread(self._wire.items, PROBES)
        form, written = await self._formed(server, [*probes, *self._wire.cut_at_padding(probes[0])])
        items: dict[int, Item] = {}
        for i, item in enumerate(written):
            if isinstance(item, Exception):
                raise item
            items[i] = item
        scores: dict[int, float] = {}
        for batch in replica.batches(items, form, self._batch_size):
            numbers = await replica.scores(form, [items[i] for i in batch])
            scores |= {i: float(self._reward(n, items[i])) for i, n in zip(batch, numbers, strict=True)}
        ordered = tuple(scores[i] for i in range(len(items)))
        found = shown(replica.connections.url, server.name, replica.model or "", ordered)
        if self._raw:
            check_scores(found.scores, found.url)
            replica.shown = found
        return found

    def _reward(self, numbers: Sequence[float], item: Item) -> Reward:
        if len(numbers) == 1 and self._label is None:
            return Reward(numbers[0], truncated=item.truncated)
        if self._label is None or not -len(numbers) <= self._label < len(numbers):
            raise UnsupportedError(
                f"reward model {self.name!r} answers with {len(numbers)} numbers; say which is the score with label="
            )
        heads = {str(i): n for i, n in enumerate(numbers)}
        return Reward(numbers[self._label], heads=heads, truncated=item.truncated)
