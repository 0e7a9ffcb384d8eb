"""A prompt and a response to the tokens their reward model was trained on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from tpo_core.errors import InvalidInputError
from tpo_core.records import repr_without_texts
from tpo_core.rewards.families.entries import Family, Gate, Steps
from tpo_core.rewards.families.frames import Frames
from tpo_core.rewards.families.literal import Literals
from tpo_core.rewards.families.messages import plain_messages, without_mark, without_thinking
from tpo_core.rewards.families.pooling import last_read
from tpo_core.values import Pair

__all__ = ["Conversations", "Encoded"]

_CUT = "\n[... {} tokens of the prompt are cut here ...]\n"


@dataclass(frozen=True)
class Encoded:
    """One conversation as its reward model reads it."""

    ids: tuple[int, ...]
    stem: int = 0
    """How many leading tokens belong to the prompt alone; what N responses share."""
    places: tuple[int, ...] = ()
    """The positions whose hidden states the head reads, in the order it wants them."""
    truncated: bool = False
    """Whether the middle of the prompt was cut."""
    kinds: tuple[int, ...] = ()
    """Which text each token is of, for models that take two texts and are told them apart."""

    __repr__ = repr_without_texts()


@dataclass(frozen=True)
class _Shown:
    """One conversation as text."""

    messages: list[dict[str, Any]]
    before: str
    """What the template puts before the response."""
    after: str
    response: str

    __repr__ = repr_without_texts()

    @property
    def text(self) -> str:
        return self.before + self.response + self.after


class Conversations:
    """Turns pairs into tokens, as one model's authors do.

    Args:
        tokenizer: The model's.
        family: What its authors show it.
        name: How errors call the model.
        max_tokens: The longest conversation it takes.
        on_long: What becomes of a longer one; see ``HFRewardModel``.
        end: A token that must end the tokens.
        padding: The token that the model's class passes over where it looks for the last one; see ``last_read``.
        keep_thinking: Whether reasoning before an answer is scored with it.
    """

    def __init__(
        self,
        tokenizer: Any,
        family: Family,
        *,
        name: str,
        max_tokens: int,
        on_long: Literal["error", "middle"],
        end: int | None = None,
        padding: int | None = None,
        keep_thinking: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._family = family
        self._name = name
        self._max_tokens = max_tokens
        self._on_long = on_long
        self._end = end
        self._padding = padding
        self._keep_thinking = keep_thinking
        self._literals = Literals(tokenizer, keep=family.head.marker if isinstance(family.head, Steps) else "")
        self._frames = Frames(tokenizer, family, name)
        if not self._frames.templated and not self._literals.takes_pairs():
            raise InvalidInputError(
                f"{name} has no chat template, and its tokenizer nothing to put between a question and an answer: give "
                "chat_template=, a Jinja template as its authors write the two"
            )

    def encode(self, pairs: Iterable[Pair]) -> list[Encoded | InvalidInputError]:
        """Return each pair's tokens, or why it has none; a prompt is rendered once, and all texts are read at once."""
        frames: dict[str, tuple[str, str]] = {}
        shown = [self._shown(pair, frames) for pair in pairs]
        batches = iter(self._batches([s.text for s in shown if isinstance(s, _Shown)]))
        return [self._encoded(s, next(batches)) if isinstance(s, _Shown) else s for s in shown]

    def _shown(self, pair: Pair, frames: dict[str, tuple[str, str]]) -> _Shown | InvalidInputError:
        with self._costing_itself() as failed:
            messages = plain_messages(pair.prompt, self._family.system)
            response = self._response(pair.response)
            key = repr(messages)
            if key not in frames:
                frames[key] = self._frames.around(messages)
            return _Shown(messages, *frames[key], response)
        return failed[0]

    def _encoded(self, shown: _Shown, batch: Any) -> Encoded | InvalidInputError:
        with self._costing_itself() as failed:
            encoded = self._tokens(shown, batch)
            if len(encoded.ids) <= self._max_tokens:
                return encoded
            return self._shortened(shown, len(encoded.ids))
        return failed[0]

    @contextmanager
    def _costing_itself(self) -> Iterator[list[InvalidInputError]]:
        """Keep what a conversation raises: templates and tokenizers are others', and it costs only itself."""
        failed: list[InvalidInputError] = []
        try:
            yield failed
        except InvalidInputError as error:
            failed.append(error)
        except Exception as error:  # noqa: BLE001 - see above
            failed.append(InvalidInputError(f"{self._name} cannot read this conversation: {error!r}"))

    def _batches(self, texts: list[str]) -> Iterable[Any]:
        """Return the tokenizer's answer for each text, from one call that uses every core; None where it has none."""
        if not self._frames.templated or len(texts) < 2 or not getattr(self._tokenizer, "is_fast", False):
            return itertools.repeat(None)
        try:
            together = self._read(texts)
            return [type(together)({"input_ids": e.ids}, [e]) for e in together.encodings]
        except Exception:  # noqa: BLE001 - then each is read alone, and only the one at fault fails
            return itertools.repeat(None)

    def _read(self, text: str | list[str]) -> Any:
        return self._tokenizer(text, add_special_tokens=self._family.bos == "one", return_attention_mask=False)

    def _response(self, text: str) -> str:
        if not self._keep_thinking:
            text = without_thinking(text)
        if isinstance(head := self._family.head, Steps):
            steps = [s for s in without_mark(text, head.marker).split(head.split) if s.strip()] or [""]
            return "".join(step + head.marker for step in steps)
        return self._frames.trim(text)

    def _tokens(self, shown: _Shown, batch: Any = None) -> Encoded:
        if not self._frames.templated:
            return self._pair_tokens(shown.messages, shown.response)
        before, response = shown.before, shown.response
        batch = self._read(shown.text) if batch is None else batch
        stem = (batch.char_to_token(len(before)) if batch.is_fast and before else 0) or 0
        ids = self._literals.ids(batch, before, response, shown.after, self._family.bos == "one")
        if self._end is not None and ids[-1:] != [self._end]:
            ids.append(self._end)
        return Encoded(tuple(ids), stem, self._places(ids, batch, before, response))

    def _pair_tokens(self, messages: Sequence[Mapping[str, Any]], response: str) -> Encoded:
        """Classifiers without a template (DeBERTa and its like) take the question and the answer as a pair of texts."""
        if len(messages) != 1:
            raise InvalidInputError(
                f"{self._name} has no chat template, so its prompt is one text; this conversation has {len(messages)} "
                "messages. Give chat_template= to score conversations"
            )
        ids, kinds = self._literals.pair(messages[0]["content"], response)
        return Encoded(tuple(ids), 0, (len(ids) - 1,), kinds=tuple(kinds))

    def _places(self, ids: Sequence[int], batch: Any, before: str, response: str) -> tuple[int, ...]:
        """Return the positions the head reads; a gate's is looked for in the prompt, where no response can move it."""
        head = self._family.head
        last = last_read(ids, self._padding)
        if isinstance(head, Steps):
            marker = self._ids_of(head.marker)
            if len(marker) != 1:
                raise InvalidInputError(
                    f"the tokenizer of {self._name} has no token {head.marker!r} to mark steps with"
                )
            found = [i for i, token in enumerate(ids) if [token] == marker]
            return tuple(found[-response.count(head.marker) :])  # others stand in the prompt, and are the user's
        if not isinstance(head, Gate):
            return (last,)
        at = before.rfind(head.after)
        place = batch.char_to_token(at) if at >= 0 else None
        if place is None:
            raise InvalidInputError(
                f"{self._name} weighs its objectives where the assistant's turn starts, and this conversation has no "
                "such place: its chat template is not the one the model was trained with"
            )
        return (last, place)

    def _ids_of(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _shortened(self, shown: _Shown, length: int) -> Encoded:
        """Cut the middle out of the longest message of the prompt; the response is never cut."""
        if self._on_long == "error":
            raise InvalidInputError(
                f"the conversation is {length} tokens long and {self._name} takes {self._max_tokens}: shorten it, "
                "raise max_tokens, or give on_long='middle' to cut the middle of the prompt"
            )
        messages = shown.messages
        longest = max(range(len(messages)), key=lambda i: len(messages[i]["content"]))
        text = messages[longest]["content"]
        keep = len(self._ids_of(text)) - (length - self._max_tokens)
        room = 8
        while (keep := keep - (room := 2 * room)) > 0:  # for the mark of the cut, and for merges across it
            short = [dict(m) for m in messages]
            short[longest]["content"] = self._middle_cut(text, keep)
            encoded = self._tokens(_Shown(short, *self._frames.around(short), shown.response))
            if len(encoded.ids) <= self._max_tokens:
                return replace(encoded, truncated=True)
        raise InvalidInputError(
            f"the conversation is {length} tokens long, {self._name} takes {self._max_tokens}, and cutting the longest "
            "message of the prompt is not enough; a response is never cut"
        )

    def _middle_cut(self, text: str, keep: int) -> str:
        ids = self._ids_of(text)
        head, tail = keep - keep // 2, keep // 2
        decode = self._tokenizer.decode
        end = decode(ids[len(ids) - tail :]) if tail else ""
        return str(decode(ids[:head])) + _CUT.format(len(ids) - keep) + str(end)
