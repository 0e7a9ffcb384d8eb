"""Rewards as attributes of MLflow's spans, where MLflow's autologging traces the host that a refinement runs in.

MLflow shows what callbacks of DSPy and LangChain are told, inputs and outputs; attributes can be searched and charted.
Its current span is the right one in DSPy always, in LangChain in sync calls, and in async ones where MLflow's tracer
runs inline.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tpo_core.drivers.tracing import outcome
from tpo_core.trajectory import Trajectory
from tpo_core.values import Reward

__all__ = ["note_outcome", "note_rewards"]

logger = logging.getLogger(__name__)


def note_rewards(reward_model: str, rewards: Sequence[Reward], span_name: str) -> None:
    """Put ``tpo.reward_model`` and ``tpo.rewards`` on the span of a scoring, where that is the current one.

    Args:
        reward_model: Its name.
        rewards: What it gave; those that are not finite are left out.
        span_name: Of the scoring's span: one that encloses it keeps its attributes as they are.
    """
    if "mlflow" in sys.modules:
        finite = [float(reward) for reward in rewards if math.isfinite(reward)]
        _note({"tpo.reward_model": reward_model, "tpo.rewards": finite}, span_name)


def note_outcome(trajectory: Trajectory) -> None:
    """Put reward, initial reward, gain, calls, tokens and stop reason on the current span, the refinement's."""
    if "mlflow" in sys.modules:
        _note(outcome(trajectory))


def _note(attributes: Mapping[str, Any], span_name: str | None = None) -> None:
    current = getattr(sys.modules.get("mlflow"), "get_current_active_span", None)
    try:
        span = None if current is None else current()
        if span is not None and span_name in (None, span.name):
            span.set_attributes(dict(attributes))
    except Exception as error:  # noqa: BLE001 - what is only shown must not cost the answer
        logger.debug("MLflow's span took no attributes: %s", error)
