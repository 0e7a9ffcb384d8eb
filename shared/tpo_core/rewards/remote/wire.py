"""Pairs as they go over the wire: token ids made here where there is a tokenizer, else text or chat messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from tpo_core.errors import InvalidInputError, ModelError, UnsupportedError
from tpo_core.prompts.rendering import as_messages, show_query
from tpo_core.rewards.families import find_family
from tpo_core.rewards.families.pooling import last_read
from tpo_core.rewards.remote.servers import Form, Item, Server
from tpo_core.threads import Mutex
from tpo_core.values import Pair

__all__ = ["Wire", "form_for", "uncut"]

_NO_LIMIT = 1 << 40


class Wire:
    """Writes pairs for servers. A tokenizer given by name is loaded when it is first needed."""

    def __init__(
        self,
        tokenizer: Any,
        text: Callable[[Pair], str] | None,
        *,
        model: str | None,
        max_tokens: int | None,
        on_long: Literal["error", "middle"],
    ) -> None:
        if on_long not in ("error", "middle"):
            raise InvalidInputError(f"on_long must be 'error' or 'middle', not {on_long!r}")
        if max_tokens is not None and tokenizer is None:
            raise InvalidInputError("max_tokens needs tokenizer=, to count with")
        if on_long == "middle" and max_tokens is None:
            raise InvalidInputError("on_long='middle' needs max_tokens=, the model's longest input")
        self._tokenizer = tokenizer
        self._text = text
        named = tokenizer if isinstance(tokenizer, str) else getattr(tokenizer, "name_or_path", "")
        self._name = str(model or named)
        self._family = find_family(self._name)
        if tokenizer is not None and self._family.refused and not self._family.served:
            raise InvalidInputError(f"{self._name} ({self._family.name}) {self._family.refused}")
        self._limit = max_tokens or _NO_LIMIT
        self._on_long: Literal["error", "middle"] = on_long
        self._lock = Mutex()  # tokenizers are not safe to share between threads
        self._conversations: Any = None

    def items(self, pairs: Sequence[Pair]) -> list[Item | Exception]:
        """Write each pair in every form there is, or say why it cannot be sent."""
        items = [self._plain(pair) for pair in pairs]
        places = [i for i, item in enumerate(items) if isinstance(item, Item)]
        if self._tokenizer is None or not places:
            return items
        with self._lock:
            for i, encoded in zip(places, self._loaded().encode([pairs[i] for i in places]), strict=True):
                items[i] = encoded if isinstance(encoded, Exception) else _with_ids(items[i], encoded)
        return items

    def cut_at_padding(self, item: Item | Exception) -> list[Item]:
        """Return an item once more without the padding tokens it ends with; nothing where it ends otherwise."""
        padding = getattr(self._tokenizer, "pad_token_id", None)  # a name was loaded when the item was written
        if not isinstance(item, Item) or item.text is not None or padding is None or item.ids[-1:] != (padding,):
            return []
        return [replace(item, ids=item.ids[: last_read(item.ids, padding) + 1])]

    def spelled(self, items: Sequence[Item | Exception]) -> list[Item | Exception]:
        """Write token ids out as text, for servers that make the same ids of it again."""
        with self._lock:
            return [self._spelled(item) if isinstance(item, Item) and item.text is None else item for item in items]

    def _spelled(self, item: Item) -> Item | Exception:
        text = self._tokenizer.decode(list(item.ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"]) == item.ids:
            return replace(item, text=text)
        return InvalidInputError(
            "the tokens of this conversation cannot be written as a text that is read as the same tokens (it holds the "
            "name of a special token, say): use a server that takes token ids, or give text="
        )

    def _plain(self, pair: Pair) -> Item | Exception:
        try:
            turns = [*as_messages(pair.prompt), {"role": "assistant", "content": pair.response}]
            json.dumps(turns, ensure_ascii=False).encode()
            text = self._text(pair) if self._text is not None else None
            return Item(pair, text=text, messages=tuple(turns), prompt=show_query(pair.prompt))
        except UnicodeEncodeError:
            return InvalidInputError("a lone surrogate stands in the text, which no server can take")
        except Exception as error:  # noqa: BLE001  the user's text= costs one pair
            return error

    def _loaded(self) -> Any:
        if self._conversations is None:
            from tpo_core.rewards.families.conversation import Conversations

            if isinstance(self._tokenizer, str):
                self._tokenizer = _load(self._tokenizer)
            if self._family.template:
                self._tokenizer.chat_template = self._family.template
            self._conversations = Conversations(
                self._tokenizer,
                self._family,
                name=self._name or "this tokenizer",
                max_tokens=self._limit,
                on_long=self._on_long,
            )
        return self._conversations


def _with_ids(item: Any, encoded: Any) -> Item:
    whole: Item = replace(item, ids=encoded.ids, stem=encoded.stem, truncated=encoded.truncated)
    return whole


def _load(name: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ModelError("tokenizer= needs transformers: pip install 'tpo[hf]'") from error
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelError(f"tokenizer {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error


def form_for(server: Server, item: Item, name: str) -> Form:
    """Return the best form that a server takes and that is at hand.

    Raises:
        UnsupportedError: There is none.
    """
    form = server.form_of(item)
    if form is None:
        raise UnsupportedError(
            f"{server.name} takes {' or '.join(server.forms)}, which reward model {name!r} cannot make: "
            "give tokenizer=, the reward model's own, or text=, which writes a pair as one text"
        )
    return form


def uncut(server: Server, item: Item) -> Item | Exception:
    """Return an item, or the error of one whose end the server would cut off without a word."""
    if len(item.ids) <= server.cuts:
        return item
    return InvalidInputError(
        f"the conversation is {len(item.ids)} tokens long, and {server.name} cuts the end of the answer off after "
        f"{server.cuts} unless it was started with more: give max_tokens=, what it takes"
    )
