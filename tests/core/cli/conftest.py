"""The tiny reward models that these tests build, and the folder that commands are given in."""

from __future__ import annotations

from pathlib import Path

import pytest
from environment import forget_models
from tiny_rewards import _one_thread, build

__all__ = ["_one_thread", "build", "folder"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, with no models in the environment."""
    forget_models(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path
