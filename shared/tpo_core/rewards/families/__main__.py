"""Print the table of the documentation."""

from __future__ import annotations

from tpo_core.rewards.families.table import table

print(table())  # noqa: T201 - a generator of documentation
