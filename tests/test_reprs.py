"""The repr of no dataclass shows a prompt, an answer, a critique or a key: reprs get into logs and tracebacks."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tpo_core
import tpo_dspy
import tpo_langchain
import tpo_litellm
import tpo_otel
from tpo_core import Candidate, Failure, Step, Trajectory, Usage
from tpo_core.records import repr_without_texts
from tpo_core.runs import Item
from tpo_core.values import Completion, Pair, Reward

CANARY = "the canary sings"


@dataclass
class Mine:
    """A user's own answer."""

    text: str


def dataclasses() -> Iterator[type[Any]]:
    for package in (tpo_core, tpo_dspy, tpo_langchain, tpo_litellm, tpo_otel):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                there = vars(importlib.import_module(found.name)).values()
                yield from (c for c in there if isinstance(c, type) and c.__module__ == found.name and is_dataclass(c))


FOUND = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in dataclasses()}
BRIEF = {name: kind for name, kind in FOUND.items() if kind.__repr__.__module__ == "tpo_core.records"}

SHOWN = {
    "error", "failure", "finish_reason", "folder", "form", "head", "heads", "id", "kind", "message", "model", "name",
    "policy", "reason", "reward", "salt", "sampling", "scale", "seeds", "signature", "state", "task",
}  # fmt: skip
"""Fields that reprs show whole: what something is called or set to, and why it failed."""

PLAIN = {
    "tpo_core.cli.scaling._Parts", "tpo_core.drivers.outcomes.Raised", "tpo_core.drivers.serving.Batch",
    "tpo_core.drivers.serving.Models", "tpo_core.prompts.sections.Form", "tpo_core.prompts.signatures.Signature",
    "tpo_core.rewards.calling.Takes", "tpo_core.rewards.checks.Check", "tpo_core.rewards.remote.replica.Replica",
    "tpo_core.rewards.remote.selftest.SelfTest", "tpo_core.rewards.remote.servers.Server",
    "tpo_core.rewards.verifiable.code._Suite", "tpo_core.runs.ray.carried.Carried", "tpo_core.trajectory.Trajectory",
    "tpo_langchain.graphs.WholeGraph", "tpo_langchain.memory.Memory",
}  # fmt: skip
"""What is shown as dataclasses are: names and settings, never what was asked or answered; a trajectory has its own."""

PLAIN_MODULES = (
    "tpo_core.config", "tpo_core.report.", "tpo_core.rewards.families.entries", "tpo_core.rewards.hf.",
    "tpo_core.studies.",
)  # fmt: skip
"""Settings, and what is counted over many queries."""

canaries = st.recursive(
    st.sampled_from([CANARY, CANARY.encode(), Mine(CANARY), {CANARY}, frozenset({CANARY}), ValueError(CANARY)]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2)
        | st.lists(inner, min_size=1, max_size=2).map(tuple)
        | st.builds(lambda text: {"content": text, CANARY: 1}, inner)
        | st.builds(lambda text: Candidate(text, text, feedback=text, context=text), inner)
        | st.builds(lambda text: Completion(text, text, context=text), inner)
        | st.builds(lambda text: Pair(text, text, text, text, text, text), inner)
        | st.builds(lambda text: Step(1, Candidate(text), loss=text, gradient=text), inner)
        | st.builds(lambda text: Reward(0.5, feedback=text), inner)
        | st.builds(lambda text: Trajectory(text, (Candidate(text, reward=1.0),), (Step(1, loss=text),)), inner)
    ),
    max_leaves=4,
)


@pytest.mark.parametrize("name", BRIEF)
@settings(max_examples=15, deadline=None)
@given(canaries)
def test_a_repr_shows_no_text_whatever_holds_it(name: str, held: Any) -> None:
    kind = BRIEF[name]
    made = object.__new__(kind)  # as a value may be that was changed since
    for each in fields(kind):
        object.__setattr__(made, each.name, 1 if each.name in SHOWN else held)
    assert CANARY not in repr(made)


def test_no_dataclass_that_may_hold_texts_shows_its_fields_as_dataclasses_do() -> None:
    """A new one either has ``repr_without_texts``, or holds numbers, or is named above."""
    texts = ("str", "Any", "Prompt", "Mapping", "Sequence", "Message", "Exception")
    others = {name: kind for name, kind in FOUND.items() if name not in BRIEF and not name.startswith(PLAIN_MODULES)}
    may = {name for name, kind in others.items() if any(text in f.type for f in fields(kind) for text in texts)}
    assert may - PLAIN == set()
    assert set(FOUND) >= PLAIN


def test_a_repr_tells_what_helps_without_the_text() -> None:
    failure = Failure("unparsable", "no JSON", ValueError(CANARY))
    candidate = Candidate(CANARY, reward=0.5, step=1, heads={"brief": 1.0}, fresh=False, index=7)
    assert repr(candidate) == (
        "Candidate(response=<16 characters>, reward=0.5, step=1, heads={'brief': 1.0}, fresh=False, index=7)"
    )
    assert repr(Candidate("", failure=failure)) == (
        "Candidate(response=<0 characters>, failure=Failure(reason='unparsable', message='no JSON'))"
    )
    assert repr(Completion(CANARY, usage=Usage(calls=1, completion_tokens=3))) == (
        "Completion(text=<16 characters>, usage=Usage(calls=1, completion_tokens=3))"
    )
    assert repr(Pair([{"role": "user", "content": CANARY}], "b")) == "Pair(prompt=<1 items>, response=<1 characters>)"
    assert repr(Item("a", CANARY, line=3)) == "Item(id='a', prompt=<16 characters>, line=3)"
    assert repr(Trajectory(CANARY, (candidate,))).startswith("Trajectory(best=Candidate(response=<16 characters>, ")


def test_a_repr_leaves_out_what_has_its_default_or_asks_for_it() -> None:
    @dataclass
    class Kept:
        """Something with a field of each kind."""

        name: str
        key: str = field(default="", repr=False)
        many: list[str] = field(default_factory=list)

        __repr__ = repr_without_texts("name")

    assert repr(Kept("a", "secret")) == "Kept(name='a')"
    assert repr(Kept("a", "secret", ["b", "c"])) == "Kept(name='a', many=<2 items>)"
