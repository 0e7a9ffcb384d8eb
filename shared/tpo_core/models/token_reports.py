"""Check what a server reports for several choices of one request: some count the tokens of the first choice only.

llama.cpp's server is one: three answers of eight tokens are eight to it. Its report is noticed where it is less than
the texts hold at the least, and the other choices are then estimated from the first. Other servers count all choices,
and none of their reports is less than that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from tpo_core.values import Usage

__all__ = ["least_tokens", "of_all_choices"]

_WORD_OR_MARKS = re.compile(
    r"""[^\W_]+(?:(?:[^\x00-\x7f\s]|'(?=[^\W_]))[^\W_]*)*"""  # a word, with what is not ASCII: accents, vowel signs
    r"""|(?<![!-/:-@\[-`{-~])[!-/:-@\[-`{-~]+(?=\s|\Z)"""  # marks, all of them, with no word after them
)
_DENSE = re.compile(r"[\u2e80-\ud7ff\uf900-\ufaff\uff66-\uff9f]")  # Chinese, Japanese, Korean
_DENSE_PER_TOKEN = 4  # more than a token has on average
_BYTES_PER_TOKEN = 4  # of UTF-8, about, in any script


def of_all_choices(usage: Usage, texts: Sequence[str], is_cut: Callable[[int], bool] = lambda place: False) -> Usage:
    """Return a request's usage with the completion tokens of all its choices, estimated where the report cannot be.

    Args:
        usage: What the server reported for the request; a report of no tokens stays one.
        texts: What the model wrote for each choice, in the server's order: the content, what it thought before, the
            calls of tools.
        is_cut: Returns whether the token limit ended a choice, by its place; asked only where there is an estimate.

    Example:
        >>> three = ["Oak is a hard and heavy wood.", "Pine is soft.", "Balsa is light."]
        >>> of_all_choices(Usage(completion_tokens=9), three).completion_tokens
        17
        >>> of_all_choices(Usage(completion_tokens=19), three).estimated
        False
    """
    reported = usage.completion_tokens
    if not reported or reported >= sum(map(least_tokens, texts)):
        return usage
    if reported == sum(len(text.split()) for text in texts):  # it counts words, as stand-ins for servers do
        return usage
    size = len(_bytes(texts[0]))
    telling = size >= 10 * _BYTES_PER_TOKEN  # a short text is no measure of the others
    rate = min(1.0, max(0.1, reported / size)) if telling else 1 / _BYTES_PER_TOKEN
    others = range(1, len(texts))
    more = sum(reported if is_cut(0) and is_cut(i) else _estimate(texts[i], rate) for i in others)
    return replace(usage, completion_tokens=reported + more, estimated=True)


def least_tokens(text: str) -> int:
    """Return how many tokens a text has at the least, whatever common tokenizer made it.

    They split a text into words, and marks from words (one mark before a word may go with it) before they look for
    tokens, so that none spans two of these. Chinese, Japanese and Korean are written without spaces: there a token has
    two or three characters.
    """
    dense = 0 if text.isascii() else len(_DENSE.findall(text))
    return max(len(_WORD_OR_MARKS.findall(text)), dense // _DENSE_PER_TOKEN, 1 if text else 0)


def _estimate(text: str, rate: float) -> int:
    return max(least_tokens(text), round(len(_bytes(text)) * rate))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
