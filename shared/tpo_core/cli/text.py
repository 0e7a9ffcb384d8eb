"""Text from models, made safe to show on a terminal."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from tpo_core.masking import public

__all__ = ["CleanFormatter", "clean", "json_line", "reward_name"]

# C0 and C1 controls but for newline and tab, which start terminal commands; marks that reorder or annotate text; and
# halves of surrogate pairs, which no terminal takes
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def clean(text: str) -> str:
    r"""Drop what a terminal would obey instead of showing: escape sequences' first bytes, controls, bidi overrides.

    Example:
        >>> clean("a\x1b[31mb\r\n")
        'a[31mb\n'
    """
    return _UNSAFE.sub("", text)


def json_line(data: Any, encoding: str | None = None) -> str:
    r"""Write data as JSON on one line, with what ``clean`` would drop, or the encoding lacks, as JSON's own escapes.

    Example:
        >>> json_line({"a": "é\x9b31m"}), json_line("é", "ascii")
        ('{"a": "é\\u009b31m"}', '"\\u00e9"')
    """
    text = _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(data, ensure_ascii=False))
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(data)
    return text


class CleanFormatter(logging.Formatter):
    """Formats log records for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Format, and drop what the terminal would obey."""
        return clean(super().format(record))


def reward_name(given: str) -> str:
    """Return what ``--reward`` or ``--gold`` names, an address without what is secret in it.

    Example:
        >>> reward_name("http://me:secret@host/v1"), reward_name("judge")
        ('http://host/v1', 'judge')
    """
    return public(given) if "://" in given else given
