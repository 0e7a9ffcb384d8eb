"""Models whose attention cannot be packed are scored in padded batches: said once, and to nobody who did not ask."""

from __future__ import annotations

import logging
import re
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from reward_references import PROMPT, RESPONSES, Build

from tpo_core.rewards import HFRewardModel


@pytest.fixture
def said() -> Any:
    """Return the records of this package and of transformers, whose loggers do not reach the root."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("transformers", "tpo_core")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
    loggers[1].setLevel(logging.INFO)
    yield records
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("BloomForSequenceClassification", {}, "cannot be replaced"),
        ("DiffLlamaForSequenceClassification", {}, "off by|cannot be replaced"),  # transformers 5.0 cannot replace it
        ("Gemma2ForSequenceClassification", {}, "soft caps"),
    ],
)
def test_a_fall_back_is_said_once_and_warns_nobody(
    build: Build, said: list[logging.LogRecord], kind: str, config: dict[str, Any], reason: str
) -> None:
    path = build("someone", kind, **config)
    said.clear()
    reward = HFRewardModel(str(path))
    for _ in range(2):
        reward.score(PROMPT, RESPONSES)
    assert [r.getMessage() for r in said if r.levelno > logging.INFO] == []
    (one,) = [r.getMessage() for r in said if "padded batches" in r.getMessage()]
    assert re.search(reason, one) and str(path) in one


def test_a_model_that_is_packed_has_nothing_to_say(build: Build, said: list[logging.LogRecord]) -> None:
    path = build("someone")
    said.clear()
    HFRewardModel(str(path)).score(PROMPT, RESPONSES)
    assert said == []


def test_the_floor_of_torch_has_what_the_code_calls_and_what_transformers_wants() -> None:
    text = (next(p for p in Path(__file__).parents if (p / "pyproject.toml").exists()) / "pyproject.toml").read_text()
    (floor,) = re.findall(r'"torch>=([\d.]+)"', text)
    assert Version(floor) >= Version("2.5"), "scaled_dot_product_attention takes enable_gqa since 2.5"
    wanted = next(r for r in map(Requirement, requires("transformers") or ()) if r.name == "torch")
    assert Version(floor) in wanted.specifier, "transformers calls torch disabled below its own floor"
