"""The spans of one query: the query, its rounds, and each call in them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context, use_span

from tpo_core.config import TPOConfig
from tpo_core.loop.effects import Generate, Progress
from tpo_core.masking import hide
from tpo_core.models.policy import Policy
from tpo_core.rewards.base import RewardModel
from tpo_core.trajectory import Trajectory
from tpo_core.values import Completion, Pair, Prompt, Reward
from tpo_otel import attributes

__all__ = ["QuerySpans", "SpanTracer"]


class SpanTracer:
    """Begins the spans of queries.

    Args:
        tracer: OpenTelemetry's.
        texts: Whether spans hold texts.
    """

    def __init__(self, tracer: Tracer, texts: bool) -> None:
        """Begin none yet."""
        self._tracer, self._texts = tracer, texts

    def query(self, query: Prompt, config: TPOConfig, place: int) -> QuerySpans:
        """Begin the span of a query, inside the caller's span where there is one."""
        span = self._tracer.start_span("invoke_workflow tpo", attributes=attributes.of_config(config, place))
        if self._texts:
            span.set_attributes(attributes.of_query(query))
        return QuerySpans(self._tracer, span, self._texts)


class QuerySpans:
    """The spans of one query."""

    def __init__(self, tracer: Tracer, span: Span, texts: bool) -> None:
        """Take the query's span, which has begun."""
        self._tracer, self._span, self._texts = tracer, span, texts
        self._lock = threading.Lock()
        self._round: Span | None = None
        self._step = -1

    @contextmanager
    def calling(
        self, policy: Policy, request: Generate, seeds: Sequence[int]
    ) -> Iterator[Callable[[Sequence[Completion]], None]]:
        """Trace one call of the policy, in the round that it belongs to."""
        asked = attributes.of_request(policy, request, seeds)
        kind = SpanKind.CLIENT if attributes.MODEL in asked else SpanKind.INTERNAL
        with self._span_of_call(f"tpo.{request.task}", asked, kind, request.step) as span:
            if self._texts:
                span.set_attributes(attributes.of_prompt(request))
            yield lambda completions: span.set_attributes(attributes.of_completions(completions, self._texts))

    @contextmanager
    def scoring(self, reward: RewardModel, pairs: Sequence[Pair]) -> Iterator[Callable[[Sequence[Reward]], None]]:
        """Trace one scoring, in the round under way."""
        asked = {"tpo.reward_model": reward.name, "tpo.pairs": len(pairs)}
        with self._span_of_call("tpo.score", asked) as span:

            def scored(rewards: Sequence[Reward]) -> None:
                span.set_attributes(attributes.of_rewards(rewards))
                for each in attributes.of_each_reward(reward.name, rewards, self._texts):
                    span.add_event("gen_ai.evaluation.result", each)

            yield scored

    def told(self, progress: Progress) -> None:
        """Note what a round came to; end the last one when the loop has stopped."""
        with self._lock:
            if self._round is not None and progress.kind == "scored":
                self._round.set_attributes(attributes.of_round(progress))
            if progress.kind == "stopped":
                self._end_round()

    def ended(self, trajectory: Trajectory, error: BaseException | None) -> None:
        """End the query's span."""
        with self._lock:
            self._end_round()
        self._span.set_attributes(attributes.of_trajectory(trajectory, self._texts))
        if isinstance(error, Exception):  # a cancellation is none: see the stop reason
            self._fail(self._span, error)
        self._span.end()

    @contextmanager
    def _span_of_call(
        self, name: str, asked: dict[str, Any], kind: SpanKind = SpanKind.INTERNAL, step: int | None = None
    ) -> Iterator[Span]:
        """Make a span the current one, in this thread or task, as long as a call takes."""
        parent = set_span_in_context(self._around(step))
        span = self._tracer.start_span(name, parent, kind, attributes=asked)
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                self._fail(span, error)
                raise

    def _around(self, step: int | None) -> Span:
        """Return the span of a round, begun where it is the first call in it; None for the round under way."""
        with self._lock:
            if step is not None and step > self._step:
                self._end_round()
                within = set_span_in_context(self._span)
                self._round = self._tracer.start_span("tpo.round", within, attributes={"tpo.step": step})
                self._step = step
            return self._span if self._round is None else self._round

    def _end_round(self) -> None:
        if self._round is not None:
            self._round.end()
        self._round = None

    def _fail(self, span: Span, error: BaseException) -> None:
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, hide(str(error)) if self._texts else None))
