"""A prompt and a response to the tokens their reward model was trained on.

The template is rendered once per prompt, around a mark that stands for the response; the response then takes the
mark's place word for word. So no template can rewrite a response (Qwen3's moves text before ``</think>`` into another
block), the place where the response starts is known, and N responses cost one rendering. Dates are frozen: some
templates insert today's, and scores must not change overnight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tpo_core.errors import InvalidInputError
from tpo_core.rewards.families.entries import Family, Gate, Steps
from tpo_core.rewards.families.literal import Literals
from tpo_core.rewards.families.messages import plain_messages, without_mark, without_thinking
from tpo_core.rewards.families.pooling import last_read
from tpo_core.values import Pair

__all__ = ["Conversations", "Encoded"]

_DATE = "26 Jul 2024"  # what Llama 3.1's own template writes, and what 3.2's writes when it has no clock
_CLOCK = (
    f"{{% macro strftime_now(format) %}}{_DATE}{{% endmacro %}}"  # for templates that ask the clock and no one else
)
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
        template = getattr(tokenizer, "chat_template", None)
        self._templated = bool(template)
        if not template and not self._literals.takes_pairs():
            raise InvalidInputError(
                f"{name} has no chat template, and its tokenizer nothing to put between a question and an answer: give "
                "chat_template=, a Jinja template as its authors write the two"
            )
        if isinstance(template, str) and "strftime_now" in template and not template.startswith(_CLOCK):
            tokenizer.chat_template = _CLOCK + template
        self._trim = self._measure_trim() if self._templated else _unchanged

    def encode(self, pairs: Iterable[Pair]) -> list[Encoded | InvalidInputError]:
        """Return each pair's tokens, or why it has none; a prompt is rendered once."""
        frames: dict[str, tuple[str, str]] = {}
        return [self._encoded(pair, frames) for pair in pairs]

    def _encoded(self, pair: Pair, frames: dict[str, tuple[str, str]]) -> Encoded | InvalidInputError:
        try:
            messages = plain_messages(pair.prompt, self._family.system)
            response = self._response(pair.response)
            key = repr(messages)
            if key not in frames:
                frames[key] = self._frame(messages)
            encoded = self._tokens(frames[key], messages, response)
            if len(encoded.ids) <= self._max_tokens:
                return encoded
            return self._shortened(messages, response, len(encoded.ids))
        except InvalidInputError as error:
            return error
        except Exception as error:  # noqa: BLE001 - templates and tokenizers of others; this one costs only itself
            return InvalidInputError(f"{self._name} cannot read this conversation: {error!r}")

    def _response(self, text: str) -> str:
        if not self._keep_thinking:
            text = without_thinking(text)
        if isinstance(head := self._family.head, Steps):
            steps = [s for s in without_mark(text, head.marker).split(head.split) if s.strip()] or [""]
            return "".join(step + head.marker for step in steps)
        return self._trim(text)

    def _frame(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """Return what stands before and after the response."""
        if not self._templated:
            return "", ""
        longest = max((len(x) for m in messages for x in re.findall("TPO_RESPONSE(X*)", m["content"])), default=-1)
        mark = "TPO_RESPONSE" + "X" * (longest + 1)
        before, found, after = self._render(messages, mark).rpartition(mark)
        if not found:
            raise InvalidInputError(f"the chat template of {self._name} leaves the response out of this conversation")
        bos = self._tokenizer.bos_token
        if self._family.bos == "one" and bos:
            before = before.removeprefix(bos)
        return before, after

    def _render(self, messages: Sequence[Mapping[str, Any]], response: str) -> str:
        import jinja2

        try:
            text: str = self._tokenizer.apply_chat_template(
                [*messages, {"role": "assistant", "content": response}],
                tokenize=False,
                add_generation_prompt=False,
                date_string=_DATE,
            )
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise InvalidInputError(f"the chat template of {self._name} refuses this conversation: {error}") from error
        return text

    def _measure_trim(self) -> Callable[[str], str]:
        """Return what the template does to the white space around a response."""
        probe = [{"role": "user", "content": "question"}]

        def keeps(response: str) -> bool:
            return self._render(probe, response) == self._render(probe, "RESPONSE").replace("RESPONSE", response)

        try:
            if not keeps("\u2003RESPONSE\u2003"):
                return str.strip
            return _unchanged if keeps("\n\nRESPONSE") else _without_leading_newlines
        except InvalidInputError:  # a template that refuses the probe may still take the user's conversations
            return _unchanged

    def _tokens(self, frame: tuple[str, str], messages: Sequence[Mapping[str, Any]], response: str) -> Encoded:
        if not self._templated:
            return self._pair_tokens(messages, response)
        before, after = frame
        special = self._family.bos == "one"
        batch = self._tokenizer(before + response + after, add_special_tokens=special, return_attention_mask=False)
        stem = (batch.char_to_token(len(before)) if batch.is_fast and before else 0) or 0
        ids = self._literals.ids(batch, before, response, after, special)
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

    def _shortened(self, messages: list[dict[str, Any]], response: str, length: int) -> Encoded:
        """Cut the middle out of the longest message of the prompt; the response is never cut."""
        if self._on_long == "error":
            raise InvalidInputError(
                f"the conversation is {length} tokens long and {self._name} takes {self._max_tokens}: shorten it, "
                "raise max_tokens, or give on_long='middle' to cut the middle of the prompt"
            )
        longest = max(range(len(messages)), key=lambda i: len(messages[i]["content"]))
        text = messages[longest]["content"]
        keep = len(self._ids_of(text)) - (length - self._max_tokens)
        room = 8
        while (keep := keep - (room := 2 * room)) > 0:  # for the mark of the cut, and for merges across it
            short = [dict(m) for m in messages]
            short[longest]["content"] = self._middle_cut(text, keep)
            encoded = self._tokens(self._frame(short), short, response)
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


def _unchanged(text: str) -> str:
    return text


def _without_leading_newlines(text: str) -> str:
    return text.lstrip("\n")
