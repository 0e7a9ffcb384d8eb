"""The embedded default: a small real model in this process, with no key and no server.

llama.cpp runs it (through ``xllamacpp``), several conversations at a time; its own HTTP endpoint, on a free port of
127.0.0.1, lets DSPy, LangChain and other clients use the same copy of the model (``LocalChat.url``).
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tpo_core.cache_keys import files_key, made_of
from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.models.local.files import NAME
from tpo_core.models.local.server import start_server
from tpo_core.records import repr_without_texts
from tpo_core.threads import Mutex, in_each_fork
from tpo_core.values import Completion, Message, Usage

__all__ = ["LocalChat"]


class LocalChat:
    """A GGUF model in this process, as a ``ChatModel``; safe to call from several threads at once.

    It is loaded at the first call (or by ``load``). Copies of the object are the object itself, so hosts that deep-copy
    programs keep one model; pickled, it is loaded anew.

    Args:
        path: A GGUF file. By default SmolLM2-135M-Instruct, fetched once into the user's cache (93 MB).
        threads: Processor threads; by default the processors this process may use, at most 8. Where something else in
            the process has loaded OpenMP before (torch does), half of them: waiting threads then spin, and starve each
            other on a busy machine.
        context: Most tokens of one conversation, prompt and response together.
        parallel: Conversations at a time, and most samples of one request; each takes memory for ``context`` tokens.
        sampling: Passed on to llama.cpp with each request (``min_p``, ``repeat_penalty``, ``dry_multiplier``, ...); the
            call's own settings win.

    Raises:
        InvalidInputError: A number is out of range, or ``path`` is not a GGUF file.
        ModelError: When loading: ``xllamacpp`` is not installed, or the model cannot be fetched or read.

    Example:
        chat = LocalChat()
        chat.chat([{"role": "user", "content": "Name a wood."}], max_tokens=16)[0].text
    """

    takes_n: bool | None = True

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        threads: int | None = None,
        context: int = 4096,
        parallel: int = 5,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the arguments; nothing is loaded yet."""
        least = {"threads": (threads, 1), "context": (context, 64), "parallel": (parallel, 1)}
        for argument, (value, floor) in least.items():
            if value is not None and value < floor:
                raise InvalidInputError(f"{argument} must be at least {floor}, not {value}")
        if path is not None:
            _check_gguf(Path(path))
        self.name = f"local/{NAME if path is None else Path(path).stem}"
        self._settings: dict[str, Any] = {"path": path, "threads": threads, "context": context, "parallel": parallel}
        self._parallel = parallel
        self._sampling = dict(sampling or {})
        self._lock = Mutex()
        self._server: Any = None
        self._process = os.getpid()
        self._calls = _Calls()

    def load(self) -> LocalChat:
        """Load the model now, fetching it first where it must be; returns the object itself.

        Raises:
            ModelError: This process was forked from the one that loaded it, whose threads it has not.
        """
        with self._lock:
            if self._server is not None and self._process != os.getpid():
                raise ModelError(
                    f"{self.name}: this process was forked after the model was loaded, and has no threads for it. Make "
                    "the model in each process, start processes by spawn, or close() it before the fork"
                )
            if self._server is None:
                self._process = os.getpid()
                self._server = start_server(**self._settings)
                self._calls = _Calls()
                weakref.finalize(self, self._calls.end)  # runs when the process ends, too
        return self

    def close(self) -> None:
        """Stop what is being generated and give the memory back; a later call loads the model again."""
        with self._lock:
            if self._process == os.getpid():
                self._calls.over.set()
                self._server = None

    def __enter__(self) -> LocalChat:
        """Load the model for a ``with`` block."""
        return self.load()

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    @property
    def url(self) -> str:
        """Return the base URL of the model's OpenAI-compatible endpoint in this process; loads the model.

        It takes no key and any model name. Only programs on this machine can reach it, and only while the object lives.
        """
        return f"{self._ready().listening_address}/v1"

    def chat(self, messages: Sequence[Message], **settings: Any) -> list[Completion]:
        """Ask; see ``ChatModel.chat``. Requests for more than ``parallel`` samples are split."""
        return self._chat(threading.Event(), messages, **settings)

    async def achat(self, messages: Sequence[Message], **settings: Any) -> list[Completion]:
        """Ask without blocking; when cancelled, the generation stops too."""
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._chat, stop, messages, **settings)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _chat(
        self,
        stop: threading.Event,
        messages: Sequence[Message],
        *,
        n: int = 1,
        seed: int | None = None,
        **settings: Any,
    ) -> list[Completion]:
        done: list[Completion] = []
        while len(done) < n:
            share = min(self._parallel, n - len(done))
            # within one request llama.cpp gives each sample a seed of its own, counting on from this one
            numbered = None if seed is None else seed + len(done)
            body = _body(messages, n=share, seed=numbered, **settings)
            done += self._ask(stop, {**self._sampling, **body}, share)
        return done

    def _ask(self, stop: threading.Event, body: dict[str, Any], n: int) -> list[Completion]:
        """Generate as a stream: only so are the tokens of each sample told, and only so can it be stopped."""
        server = self._ready()
        with self._calls as calls:
            listener = _Listener(n, stop, calls.over)
            server.handle_chat_completions(body, listener)
        if listener.raised is not None:
            raise listener.raised
        if listener.stopped:
            raise ModelError(f"{self.name} was closed, or the call cancelled, before the answer was complete")
        if listener.error is not None:
            raise ModelError(_explained(self.name, listener.error))
        return listener.completions()

    def _ready(self) -> Any:
        server = self._server
        return server if server is not None and self._process == os.getpid() else self.load()._server

    @property
    def cache_key(self) -> str | None:
        """Return what tells it from other models: the file and how it is sampled."""
        path = self._settings["path"]
        return made_of(
            "local", *([] if path is None else [files_key(path)]), name=self.name,
            context=self._settings["context"], sampling=self._sampling,
        )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> LocalChat:
        """Stay one object: a copy of a program must not load the model twice."""
        return self

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Pickle the settings; weights and threads stay behind."""
        return _rebuilt, ({**self._settings, "sampling": self._sampling},)

    def __repr__(self) -> str:
        """Name the model."""
        return f"LocalChat({self.name!r})"


class _Calls:
    """The calls inside one loaded model. A thread that comes back from llama.cpp into an ended interpreter aborts."""

    def __init__(self) -> None:
        self.over = threading.Event()
        """Tells them to stop at the next token."""
        self.renew()
        in_each_fork(self)

    def renew(self) -> None:
        """Begin with none."""
        self._change, self._inside = threading.Condition(), 0

    def __enter__(self) -> _Calls:
        with self._change:
            self._inside += 1
        return self

    def __exit__(self, *exc: object) -> None:
        with self._change:
            self._inside -= 1
            self._change.notify_all()

    def end(self) -> None:
        """Stop the calls, and wait until they have."""
        self.over.set()
        with self._change:
            self._change.wait_for(lambda: not self._inside)


@dataclass
class _Sample:
    """What has come of one sample."""

    pieces: list[str] = field(default_factory=list)
    logprobs: list[Mapping[str, float]] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)

    __repr__ = repr_without_texts("finish_reason")


class _Listener:
    """Collects a stream's events; what it returns tells llama.cpp whether to stop."""

    def __init__(self, n: int, *stops: threading.Event) -> None:
        self._samples = [_Sample() for _ in range(n)]
        self._stops = stops
        self._ended = self._samples[0]
        self.stopped = False
        self.error: Mapping[str, Any] | None = None
        self.raised: BaseException | None = None

    def __call__(self, event: Mapping[str, Any]) -> bool:
        """Take one event; an exception here, such as Ctrl-C, would be lost in llama.cpp."""
        try:
            return self._hear(event)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            self.raised = error
            return True

    def _hear(self, event: Mapping[str, Any]) -> bool:
        self.error = self.error or event.get("error")
        for choice in event.get("choices") or ():
            self._take(choice)
        if usage := event.get("usage"):
            self._ended.usage = usage  # it follows the end of its sample
        self.stopped = self.stopped or any(stop.is_set() for stop in self._stops)
        return self.stopped

    def _take(self, choice: Mapping[str, Any]) -> None:
        sample = self._samples[choice["index"]]
        sample.pieces.append((choice.get("delta") or {}).get("content") or "")
        for token in (choice.get("logprobs") or {}).get("content") or ():
            row = {top["token"]: top["logprob"] for top in reversed(token["top_logprobs"])}
            sample.logprobs.append({token["token"]: token["logprob"], **row})
        if choice.get("finish_reason"):
            sample.finish_reason = choice["finish_reason"]
            self._ended = sample

    def completions(self) -> list[Completion]:
        """Return the samples; the first carries the tokens of all, the prompt's counted once."""
        used = self._samples[0].usage
        usage = Usage(
            requests=1,
            prompt_tokens=used.get("prompt_tokens", 0),
            completion_tokens=sum(s.usage.get("completion_tokens", 0) for s in self._samples),
            cached_tokens=(used.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        )
        return [
            Completion(
                text="".join(s.pieces),
                finish_reason=s.finish_reason,
                usage=usage if place == 0 else Usage(),
                logprobs=tuple(s.logprobs),
            )
            for place, s in enumerate(self._samples)
        ]


def _body(messages: Sequence[Message], *, logprobs: int = 0, **settings: Any) -> dict[str, Any]:
    body = {"messages": [dict(m) for m in messages], "stream": True, "stream_options": {"include_usage": True}}
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": logprobs}
    return body | {k: v for k, v in settings.items() if v is not None}


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InvalidInputError(f"path: {path} cannot be read: {error.strerror or error}") from error
    if magic != b"GGUF":
        raise InvalidInputError(f"path: {path} is not a GGUF file")


def _explained(name: str, error: Mapping[str, Any]) -> str:
    if error.get("type") == "exceed_context_size_error":
        return (
            f"the prompt has {error.get('n_prompt_tokens')} tokens, and a conversation with {name} at most "
            f"{error.get('n_ctx')}; raise LocalChat(context=...)"
        )
    return f"{name} refused the request: {error.get('message', error)}"


def _rebuilt(settings: Mapping[str, Any]) -> LocalChat:
    return LocalChat(**settings)
