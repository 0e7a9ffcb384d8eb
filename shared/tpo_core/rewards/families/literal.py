"""Responses as plain text: control tokens that a response spells out are read letter by letter.

A response is untrusted. If its ``<|eot_id|>`` were the token that ends a turn, it could close its own turn and write
the user's praise after it. So the tokens that the tokenizer keeps for itself come from the template alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Literals"]


class Literals:
    """Tokenizes frames and responses.

    Args:
        tokenizer: The model's.
        keep: A control token that responses may hold: the one put there by ourselves.
    """

    def __init__(self, tokenizer: Any, keep: str = "") -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._control = {token.content: i for i, token in added.items() if token.special and token.content != keep}
        self._firsts = {text[0] for text in self._control if text}

    def ids(self, batch: Any, before: str, response: str, after: str, special: bool) -> list[int]:
        """Return the tokens of ``before + response + after``, which are those of the batch but for control tokens.

        Args:
            batch: The tokenizer's answer for the whole text.
            before: What stands before the response.
            response: The response.
            after: What stands after it.
            special: Whether the tokenizer was asked to add tokens of its own.
        """
        ids = list(batch["input_ids"])
        if not self._held_by(response):
            return ids
        if not batch.is_fast:
            parts = [self._tokenizer(before, add_special_tokens=special)["input_ids"], self._spelled(response)]
            return [*parts[0], *parts[1], *self._tokenizer(after, add_special_tokens=False)["input_ids"]]
        end = len(before) + len(response)
        span = [batch.token_to_chars(i) for i in range(len(ids))]
        return self._replaced(ids, [], lambda i: span[i] is not None and len(before) <= span[i].start < end)[0]

    def takes_pairs(self) -> bool:
        """Return whether the tokenizer puts something of its own between two texts, as encoders want it."""
        separator = getattr(self._tokenizer, "sep_token_id", None)
        return separator is not None and separator in self._tokenizer("a", "b")["input_ids"]

    def pair(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """Return the tokens of two texts, and which text each is of where the model wants to know."""
        batch = self._tokenizer(question, answer)
        ids, kinds = list(batch["input_ids"]), list(batch.get("token_type_ids", ()))
        if not batch.is_fast or not self._held_by(answer):
            return ids, kinds
        return self._replaced(ids, kinds, lambda i: batch.token_to_sequence(i) == 1)

    def _held_by(self, response: str) -> bool:
        return any(c in response for c in self._firsts) and any(text in response for text in self._control)

    def _replaced(self, ids: list[int], kinds: list[int], mine: Callable[[int], bool]) -> tuple[list[int], list[int]]:
        held = set(ids)
        spelled = {t: self._spelled(text) for text, t in self._control.items() if t in held}
        pieces = [spelled[t] if t in spelled and mine(i) else [t] for i, t in enumerate(ids)]
        of = [kinds[i : i + 1] * len(piece) for i, piece in enumerate(pieces)]
        return [t for piece in pieces for t in piece], [k for each in of for k in each]

    def _spelled(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids
