"""The environment that the command reads."""

from __future__ import annotations

import pytest

__all__ = ["forget_models"]


def forget_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no model, address or key in the environment of a test."""
    for name in ("TPO_MODEL", "TPO_API_BASE", "TPO_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
