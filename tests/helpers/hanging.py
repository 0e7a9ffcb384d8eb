"""Calls that hang until a test lets them go."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["PATIENCE", "hang"]

PATIENCE = 60.0
"""Seconds until a call that hangs gives in, so that a test of it fails instead of hanging."""


def hang(release: threading.Event) -> Any:
    assert release.wait(PATIENCE), "the call was waited for"
    return "late"
