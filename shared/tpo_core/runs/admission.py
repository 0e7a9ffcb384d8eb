"""Which queries of a source a run has still to answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tpo_core.errors import InvalidInputError
from tpo_core.runs.items import Item
from tpo_core.runs.sources import Source
from tpo_core.runs.store import Admitted, RunStore

__all__ = ["to_do"]


def to_do(store: RunStore, items: Iterable[Item]) -> Iterator[Admitted]:
    """Take up a run's queries one by one, and yield those that are neither done nor failed, in the source's order.

    Args:
        store: The run's.
        items: From the start of the source, each time the run is opened; a ``Source`` that may skip bad lines skips
            those whose id was used before.

    Raises:
        InvalidInputError: An id was used before.
        StoreError: The run was begun with other prompts.
    """
    for item in items:
        try:
            query = store.admit(item)
        except InvalidInputError as error:
            if not isinstance(items, Source):
                raise
            items.refuse(error)
            continue
        if query.state == "open":
            yield query
    store.end_of_source()
