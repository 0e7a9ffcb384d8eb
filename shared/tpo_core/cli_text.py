"""Text from models, made safe to show on a terminal."""

from __future__ import annotations

import re

__all__ = ["clean"]

# C0 and C1 controls but for newline and tab, which start terminal commands; and marks that reorder what is read
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def clean(text: str) -> str:
    r"""Drop what a terminal would obey instead of showing: escape sequences' first bytes, controls, bidi overrides.

    Example:
        >>> clean("a\x1b[31mb\r\n")
        'a[31mb\n'
    """
    return _UNSAFE.sub("", text)
