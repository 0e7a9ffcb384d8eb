"""Where a sequence classifier of transformers looks: at the last token that is not its padding token.

A text may end with that very token: TRL takes the token that ends texts for padding where a model has none, and trains
the class so. The class then reads the token before, and its own output is what its authors see.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["last_read"]


def last_read(ids: Sequence[int], padding: int | None) -> int:
    """Return the position that a classifier is pooled at.

    Args:
        ids: A text's tokens, at least one.
        padding: The ``pad_token_id`` of the classifier's config; None where it has none, and reads the last token.

    Example:
        >>> last_read((5, 2, 7, 2, 2), padding=2)
        2
    """
    return next((i for i in range(len(ids) - 1, -1, -1) if ids[i] != padding), 0)
