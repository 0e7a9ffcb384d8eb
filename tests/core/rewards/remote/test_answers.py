"""Whatever JSON a reward server answers with: numbers for each item, or one of the errors that a replica explains."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_answers import check_answer

from tpo_core.rewards.remote.servers import SERVERS, UNREADABLE, Server, server_named

NAMES = st.sampled_from(
    ["data", "index", "probs", "embedding", "rewards", "scores", "score", "label", "LABEL_0", "model_type", "id2label"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=4)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
@settings(max_examples=40)
@given(JSON, st.dictionaries(NAMES, JSON, max_size=3))
def test_an_answer_of_any_shape_is_read_or_refused(server: Server, answer: Any, info: Any) -> None:
    assert isinstance(bool(server.sign(info)), bool) and isinstance(server.unfit(info), str)
    check_answer(server, json.loads(json.dumps(answer)), info)


@given(st.permutations(range(5)))
def test_an_answer_in_any_order_is_put_in_the_order_of_its_indexes(order: list[int]) -> None:
    data = [{"index": i, "probs": [i / 8]} for i in order]
    assert _vllm(data) == [[0.0], [0.125], [0.25], [0.375], [0.5]]


@pytest.mark.parametrize("indexes", [(0, 0), (1, 2), (0, 2), (0.9, 1.2), ("0", "1"), (-1, 0), (0, None), (0, 1e999)])
def test_indexes_that_do_not_number_the_items_are_refused(indexes: Any) -> None:
    with pytest.raises(UNREADABLE):
        _vllm([{"index": index, "probs": [0.5]} for index in indexes])


@pytest.mark.parametrize("score", ["5", True, None, [], {}, "NaN"])
def test_what_is_no_number_is_no_score(score: Any) -> None:
    server = server_named("tei")
    assert server is not None
    with pytest.raises(UNREADABLE):
        server.read([[{"score": score, "label": "LABEL_0"}]], {})


def _vllm(data: Any) -> Any:
    server = server_named("vllm")
    assert server is not None
    return server.read({"data": data}, {})
