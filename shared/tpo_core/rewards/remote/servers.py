"""What reward models are served with: how each server is recognised, asked for raw scores, and read.

    server         asked at       takes                                   trap that is avoided
    vllm           /classify      token ids, text, chat messages (one)    squashes one-label models unless told not to
    vllm-pooling   /pooling       the same                                the same
    sglang         /classify      token ids, text                         its /v1/classify always answers 1.0
    sglang-score   /v1/score      token ids (prompt and response apart)
    tei            /predict       a pair of texts                         squashes unless told not to
    openrlhf       /get_reward    text with the template written out      cuts the end of long texts off
    json           the URL        whatever ``request=`` makes of it

Recognition, requests, answers and errors were compared with vLLM 0.32, SGLang 0.5.23 and OpenRLHF 0.11 as they run
(``tests/core/rewards/real_servers.py``), and with the source of text-embeddings-inference 1.9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tpo_core.records import repr_without_texts
from tpo_core.values import Message, Pair

__all__ = ["SERVERS", "UNREADABLE", "Form", "Item", "Server", "server_named"]

Form = Literal["ids", "text", "messages", "pair"]
"""What a server is sent for one response."""

Numbers: TypeAlias = "list[list[float]]"
Info: TypeAlias = "Mapping[str, Any]"

UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError)
"""What comes of reading an answer that is of another shape."""


@dataclass(frozen=True)
class Item:
    """One response with its prompt, in every form that can be sent."""

    pair: Pair
    ids: tuple[int, ...] = ()
    """Token ids of the whole conversation; empty without a tokenizer."""
    stem: int = 0
    """How many leading ids belong to the prompt alone."""
    text: str | None = None
    """The whole conversation as one text; None when there is neither a tokenizer nor a ``text=`` function."""
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    """The prompt as one text."""
    truncated: bool = False

    __repr__ = repr_without_texts()

    def has(self, form: Form) -> bool:
        """Return whether this form is at hand; token ids can be spelled out."""
        return form in ("messages", "pair") or bool(self.ids) or (form == "text" and self.text is not None)


@dataclass(frozen=True)
class Server:
    """One kind of server."""

    name: str
    path: str
    """Where it is asked, below its URL."""
    forms: tuple[Form, ...]
    """What it takes, the best first."""
    body: Callable[[str, Form, Sequence[Item]], Any]
    """The request for some items in one form; the first argument is the model's name."""
    read: Callable[[Any, Info], Numbers]
    """The numbers of each item out of the answer, given what the server says of itself; raises one of ``UNREADABLE`` on
    another answer."""
    about: tuple[str, ...] = ()
    """Where it says what it is, the newest path first."""
    sign: Callable[[Info], bool] = bool
    """Whether the JSON object found there is its own."""
    unfit: Callable[[Info], str] = lambda info: ""
    """Why it scores nothing, by what it says of itself; empty when it does."""
    lists_models: bool = False
    """Whether requests name the model, as ``/v1/models`` does."""
    cuts: int = 0
    """How many tokens it keeps of a longer input, unless told otherwise at its start, without saying so; 0 if it
    refuses such inputs."""
    single: tuple[Form, ...] = ()
    """Forms of which one request takes one item only."""
    by_prompt: bool = False
    """Whether one request takes the responses to one prompt only."""

    def form_of(self, item: Item) -> Form | None:
        """Return the best form that is both taken and at hand."""
        return next((form for form in self.forms if item.has(form)), None)

    def batches(self, items: Mapping[int, Item], form: Form, size: int) -> list[list[int]]:
        """Cut the keys of items into what one request takes each."""
        if form in self.single:
            size = 1
        groups: dict[Any, list[int]] = {}
        for place, item in items.items():
            groups.setdefault(item.ids[: item.stem] if self.by_prompt else None, []).append(place)
        return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


# The knob has had three names over vLLM's versions, and a name it does not know is silently ignored.
_RAW = {"use_activation": False, "activation": False, "softmax": False}


def _vllm(model: str, form: Form, items: Sequence[Item]) -> dict[str, Any]:
    if form == "messages":
        return {"model": model, "messages": [dict(m) for m in items[0].messages], **_RAW}
    if form == "text":  # the text has its own BOS
        return {"model": model, "input": [i.text for i in items], "add_special_tokens": False, **_RAW}
    return {"model": model, "input": [list(i.ids) for i in items], **_RAW}


def _vllm_pooling(model: str, form: Form, items: Sequence[Item]) -> dict[str, Any]:
    return {**_vllm(model, form, items), "task": "classify"}


def _sglang(model: str, form: Form, items: Sequence[Item]) -> dict[str, Any]:
    return {"input_ids": [list(i.ids) for i in items]} if form == "ids" else {"text": [i.text for i in items]}


def _sglang_score(model: str, form: Form, items: Sequence[Item]) -> dict[str, Any]:
    query, tails = list(items[0].ids[: items[0].stem]), [list(i.ids[i.stem :]) for i in items]
    return {"model": model, "query": query, "items": tails, "apply_softmax": False}


def _tei(model: str, form: Form, items: Sequence[Item]) -> dict[str, Any]:
    return {"inputs": [[i.prompt, i.pair.response] for i in items], "raw_scores": True, "truncate": False}


def _openrlhf(model: str, form: Form, items: Sequence[Item]) -> dict[str, Any]:
    return {"query": [i.text for i in items], "prompts": [i.prompt for i in items]}


def _in_order(data: Any) -> list[Any]:
    """Return what is numbered by ``index`` in that order; each number once, from 0."""
    entries = sorted(data, key=lambda entry: entry["index"])
    if [e["index"] for e in entries] != list(range(len(entries))):
        raise ValueError("the indexes of the answer are not 0, 1, 2, ...")
    return entries


def _numbers(value: Any) -> list[float]:
    """Return a number or a list of numbers as a list; of one row per token, the last."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [float(value)]
    if not value or isinstance(value, (str, Mapping)):
        raise TypeError(f"{value!r:.80} is not a score")
    if isinstance(value[0], (list, tuple)):
        return _numbers(value[-1])
    if any(isinstance(v, (bool, str)) or v is None for v in value):
        raise TypeError(f"{value!r:.80} is not a score")
    return [float(v) for v in value]


def _read_sglang(answer: Any, info: Info) -> Numbers:
    entries = [answer] if isinstance(answer, Mapping) else answer  # one object for a text that is in no list
    return [_numbers(e["embedding"]) for e in entries]


def _read_tei(answer: Any, info: Info) -> Numbers:
    """Put the labels of each item, which come with the highest first, in the model's order."""
    if all(len(labels) == 1 for labels in answer):
        return [_numbers([label["score"]]) for (label,) in answer]
    rows = [{str(label["label"]): _numbers([label["score"]])[0] for label in labels} for labels in answer]
    (kind,) = info["model_type"].values()
    names = [name for _, name in sorted(kind["id2label"].items(), key=lambda entry: int(entry[0]))]
    return [[row[name] for name in names] for row in rows]


def _is_tei(info: Info) -> bool:
    return isinstance(info.get("model_type"), Mapping)  # {"reranker": ...} for one label, {"classifier": ...} for more


def _unfit_tei(info: Info) -> str:
    embeds = _is_tei(info) and "embedding" in info["model_type"]
    return "serves an embedding model, which gives no rewards" if embeds else ""


def _unfit_sglang(info: Info) -> str:
    return "serves a model that writes text; start it with --is-embedding" if info.get("is_generation") is True else ""


_SGLANG = ("/model_info", "/get_model_info")

SERVERS: tuple[Server, ...] = (
    Server(
        name="sglang",
        path="/classify",
        forms=("ids", "text"),
        body=_sglang,
        read=_read_sglang,
        about=_SGLANG,
        sign=lambda info: "model_path" in info,
        unfit=_unfit_sglang,
    ),
    Server(
        name="tei",
        path="/predict",
        forms=("pair",),
        body=_tei,
        read=_read_tei,
        about=("/info",),
        sign=_is_tei,
        unfit=_unfit_tei,
    ),
    Server(
        name="vllm",
        path="/classify",
        forms=("ids", "text", "messages"),
        body=_vllm,
        read=lambda answer, info: [_numbers(e["probs"]) for e in _in_order(answer["data"])],
        about=("/version",),
        sign=lambda info: "version" in info,
        single=("messages",),
        lists_models=True,
    ),
    Server(
        name="openrlhf",
        path="/get_reward",
        forms=("text",),
        body=_openrlhf,
        read=lambda answer, info: [_numbers(r) for r in answer["rewards"]],
        about=("/openapi.json",),
        sign=lambda info: isinstance(paths := info.get("paths"), Mapping) and "/get_reward" in paths,
        cuts=2048,
    ),
    Server(
        name="vllm-pooling",
        path="/pooling",
        forms=("ids", "text", "messages"),
        body=_vllm_pooling,
        read=lambda answer, info: [_numbers(e["data"]) for e in _in_order(answer["data"])],
        single=("messages",),
        lists_models=True,
    ),
    Server(
        name="sglang-score",
        path="/v1/score",
        forms=("ids",),
        body=_sglang_score,
        read=lambda answer, info: [_numbers(s) for s in answer["scores"]],
        about=_SGLANG,
        sign=lambda info: "model_path" in info,
        unfit=_unfit_sglang,
        by_prompt=True,
    ),
)
"""In the order in which they are looked for."""


def server_named(name: str) -> Server | None:
    """Return the server of that name, None when there is none."""
    return next((s for s in SERVERS if s.name == name), None)
