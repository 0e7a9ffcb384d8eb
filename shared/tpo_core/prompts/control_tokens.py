"""Control tokens of chat templates that a text spells out, shown so that no tokenizer takes them for its own.

Servers write a conversation as one text before they tokenize it, and then read ``<|im_end|>`` in a candidate as the end
of the turn, whatever fence stands around it. So an invisible mark goes behind the first sign of each, and out again of
what models write: an answer about chat templates comes through whole.
"""

from __future__ import annotations

import re

__all__ = ["join_control_tokens", "split_control_tokens"]

_MARK = "\u200b"  # zero-width space
# What follows the first sign: of <|im_end|>, <｜User｜>, </s>, <start_of_turn>, <<SYS>>; of [INST], [|endofturn|]
_ANGLED = (
    r"\|[^\s|<>]{1,64}\|>|｜[^\s｜<>]{1,64}｜>|/?s>|(?:bos|eos|pad|unk|sep|cls|mask)>|"
    r"(?:start|end)_of_(?:turn|image|text|role)>|</?SYS>>"
)
_SQUARE = r"\|[^\s|\[\]]{1,64}\|\]|/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
_WHOLE = re.compile(rf"<(?={_ANGLED})|\[(?={_SQUARE})")
_SPLIT = re.compile(rf"(?<=<){_MARK}+(?={_ANGLED})|(?<=\[){_MARK}+(?={_SQUARE})")


def split_control_tokens(text: str) -> str:
    """Return a text in which no control token is whole.

    Example:
        >>> split_control_tokens("Turns end with <|im_end|>.") == "Turns end with <\\u200b|im_end|>."
        True
    """
    return _WHOLE.sub(lambda sign: sign[0] + _MARK, text) if "<" in text or "[" in text else text


def join_control_tokens(text: str) -> str:
    """Return a text as it was before ``split_control_tokens``.

    Example:
        >>> join_control_tokens(split_control_tokens("Turns end with <|im_end|>."))
        'Turns end with <|im_end|>.'
    """
    return _SPLIT.sub("", text) if _MARK in text else text
