"""Rows without padding, kept prefixes, and the attention behind them: each computes what a plain pass computes."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tpo_core.rewards import HFRewardModel
from tpo_core.rewards.families.conversation import Encoded
from tpo_core.rewards.hf.attention import looked_up, masked, merged, multiplied
from tpo_core.rewards.hf.checkpoint import Loaded
from tpo_core.rewards.hf.heads import LinearHead
from tpo_core.rewards.hf.packed import PackedForward
from tpo_core.rewards.hf.planning import Segment, plan_rows
from tpo_core.rewards.hf.prefixes import Prefix, PrefixStore, shared_length
from tpo_core.rewards.hf.rows import Row
from tpo_core.rewards.hf.scoring import WindowedForward, choose_forward
from tpo_core.rewards.hf.varlen import Spans, VarlenRow

Build = Callable[..., Path]


@pytest.fixture
def path(build: Build) -> str:
    return str(build("someone"))


@pytest.mark.parametrize("size", [0, 200_000, 2**30])
def test_kept_prefixes_stay_within_their_bytes_and_scores_the_same(path: str, size: int) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    head = LinearHead(model.score.weight, None, 0, ("score",))
    loaded = Loaded(model.model, head, model.config, torch.device("cpu"), hidden=True)
    plain = copy.deepcopy(model)
    forward = PackedForward(loaded, None, max_prefix_bytes=size)
    rng = random.Random(0)
    for _ in range(6):
        stem = tuple(rng.choices(range(20, 99), k=rng.choice([10, 200, 400])))
        each = [Encoded((*stem, *rng.choices(range(99), k=20)), len(stem), (len(stem) + 19,)) for _ in range(3)]
        with torch.inference_mode():
            got = [value for value, _ in head(forward(each))]
            want = [plain(input_ids=torch.tensor([e.ids])).logits[0, 0].item() for e in each]
        assert got == pytest.approx(want, abs=1e-4)
        held = sum(t.nbytes for e in forward.store._entries for t in (*e.keys.values(), *e.values.values()))
        assert held == forward.store.tokens * 2 * 2 * 2 * 8 * 4 <= size  # keys and values, layers, heads, size, float32


def test_a_prompt_is_computed_once_for_all_responses_and_rounds(path: str) -> None:
    reward = HFRewardModel(path)
    prompt = "What is the capital of France? " * 20
    counts: list[int] = []
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda m, args: counts.append(args[0].numel()) if isinstance(m, torch.nn.Embedding) else None
    )
    try:
        reward.score(prompt, ["Paris"])
        first = sum(counts)
        for round_ in range(3):
            reward.score(prompt, [f"{word} {round_}" for word in ("Paris", "Lyon", "step one", "city")])
    finally:
        handle.remove()
    assert first > 150 and sum(counts) < first + 12 * 12


class Looks(TorchDispatchMode):
    """Counts what the attention kernel is asked: (queries, keys)."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
            self.asked.append((args[0].shape[2], args[1].shape[2]))
        return func(*args, **(kwargs or {}))


def test_responses_to_a_known_prompt_are_one_row_and_look_at_it_in_one_call_a_layer(path: str) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    head = LinearHead(model.score.weight, None, 0, ("s",))
    forward = PackedForward(Loaded(model.model, head, model.config, torch.device("cpu"), True), None, 2**30)
    stem = tuple(range(20, 99)) * 4
    each = [Encoded((*stem, *[7 + n] * (150 + n)), len(stem), (len(stem) + 149 + n,)) for n in range(6)]
    with torch.inference_mode():
        forward(each[:1])
        with Looks() as looks:
            forward(each[1:])
    tails = [len(e.ids) - len(stem) for e in each[1:]]
    layers = model.config.num_hidden_layers - 1  # in the last one only the chosen tokens look
    heads_of_a_group = model.config.num_attention_heads // model.config.num_key_value_heads
    once = [(heads_of_a_group * sum(tails), len(stem)), *((n, n) for n in tails)]
    assert sorted(looks.asked) == sorted(once * layers)


def test_conversations_within_a_sliding_window_are_packed_and_longer_ones_padded(build: Build) -> None:
    path = build("someone", "MistralForSequenceClassification", sliding_window=64)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    plain = copy.deepcopy(model)
    loaded = Loaded(
        model.model, LinearHead(model.score.weight, None, 0, ("s",)), model.config, torch.device("cpu"), True
    )
    forward = choose_forward(loaded, None, 2**20)
    assert isinstance(forward, WindowedForward)
    stem = tuple(range(20, 60))
    each = [Encoded((*stem, *range(99, 99 + n)), 40, (39 + n,)) for n in (24, 25, 5, 90)]
    for _ in range(2):
        with torch.inference_mode():
            got = [value for value, _ in loaded.head(forward(each))]
            want = [plain(input_ids=torch.tensor([e.ids])).logits[0, 0].item() for e in each]
        assert got == pytest.approx(want, abs=1e-5)


def in_parts(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    return merged(q, (k[:, :, :30], v[:, :, :30]), (k[:, :, 30:], v[:, :, 30:]), [q.shape[2]], scale)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("lengths", [[5], [1, 7, 200, 3], [70, 1]])
def test_segments_behind_one_prefix_attend_together_as_each_alone(heads: int, groups: int, lengths: list[int]) -> None:
    torch.manual_seed(0)
    q = torch.randn(1, sum(lengths), heads, 8).transpose(1, 2)
    k, v = torch.randn(2, 1, sum(lengths), groups, 8).transpose(2, 3)
    prefix = torch.randn(2, 1, groups, 50, 8)[:, :, :, :30]
    together = merged(q, (prefix[0], prefix[1]), (k, v), lengths, 0.3)
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        keys, values = (torch.cat([p, t[:, :, part]], 2) for p, t in zip(prefix, (k, v), strict=True))
        mask = torch.ones(length, 30 + length, dtype=torch.bool).tril(30)
        want = functional.scaled_dot_product_attention(q[:, :, part], keys, values, mask, scale=0.3, enable_gqa=True)
        assert torch.allclose(together[:, :, part], want, atol=1e-5)
        start += length


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("tokens_", [1, 7, 600])
def test_every_way_of_attending_to_a_prefix_agrees_with_causal_attention(heads: int, groups: int, tokens_: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 30 + tokens_, heads, 8).transpose(1, 2)  # as a model's layers lay them out
    k, v = torch.randn(2, 1, 30 + tokens_, groups, 8).transpose(2, 3)
    want = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True, scale=0.3)
    room = k.new_full((2, 1, groups, 50 + tokens_, 8), torch.nan)  # keys and values stand at the front of larger spaces
    room[0, :, :, : 30 + tokens_], room[1, :, :, : 30 + tokens_] = k, v
    roomy = room[:, :, :, : 30 + tokens_]
    for way in (masked, in_parts, multiplied, *([looked_up] if tokens_ == 1 else [])):
        for keys, values in ((k, v), roomy):
            assert torch.allclose(way(q[:, :, 30:], keys, values, 0.3), want[:, :, 30:], atol=1e-5)
    assert torch.allclose(multiplied(q, k, v, 0.3), want, atol=1e-5)


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(
    st.lists(st.tuples(tokens, st.integers(0, 40)), min_size=1, max_size=12),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 200),
)
@settings(max_examples=150, deadline=None)
def test_every_plan_computes_each_sequence_once_after_what_it_needs(
    drawn: list[tuple[list[int], int]], budget: int, most: int, memory_: int
) -> None:
    distinct = {tuple(ids): min(stem, len(ids) - 1) for ids, stem in drawn}
    sequences = [Encoded(ids, stem, (len(ids) - 1, *([stem - 1] if stem else []))) for ids, stem in distinct.items()]
    store = PrefixStore(memory_, 1, least=4)
    for _ in range(2):
        filled = {entry: len(entry.ids) for entry in store._entries}
        behind: dict[Prefix, tuple[int, int]] = {}  # whose tokens stand behind a prefix, and up to where
        done = [0] * len(sequences)
        for row in plan_rows(sequences, store, budget=budget, most=most, least=4):
            assert len(row) == 1 or sum(s.length for s in row) <= budget
            for segment in row:
                ids, memory = segment.sequence.ids, segment.memory
                assert 1 <= segment.length <= most and (segment.start or not done[segment.index])
                if segment.start and not done[segment.index]:
                    known = segment.takes or memory
                    assert known is not None and filled[known] >= segment.start
                    assert known.ids[: segment.start] == ids[: segment.start]
                    assert {p for p in segment.sequence.places if p < segment.start} <= set(known.places)
                elif segment.start:
                    assert memory is not None and segment.takes is None and segment.start == done[segment.index]
                    assert filled.get(memory, 0) >= segment.start or behind[memory] == (segment.index, segment.start)
                    assert not segment.needs_room or segment is row[-1]
                if memory is not None:
                    assert memory.room >= segment.end
                    common = shared_length(memory.ids, ids)
                    assert common == len(memory.ids)
                    filled[memory] = max(filled.get(memory, 0), min(segment.end, common))
                    behind[memory] = (segment.index, segment.end)
                done[segment.index] = segment.end
        assert done == [len(s.ids) for s in sequences]
        assert store.tokens == sum(e.room for e in store._entries) <= memory_


def in_loops(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: Spans, keys: Spans, causal: bool, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend as a kernel for variable lengths does, one sequence and head at a time."""
    output, lse = torch.zeros_like(q), torch.full((q.shape[1], q.shape[0]), torch.inf)
    spans = [itertools.pairwise(s.ends.tolist()) for s in (queries, keys)]
    for (first, last), (start, end) in zip(*spans, strict=True):
        assert last - first <= queries.longest and end - start <= keys.longest
        mask = torch.zeros(last - first, end - start)
        if causal:
            mask += torch.full_like(mask, -torch.inf).triu_(end - start - (last - first) + 1)
        for head in range(q.shape[1] if end > start else 0):
            group = head * k.shape[1] // q.shape[1]
            scores = q[first:last, head] @ k[start:end, group].T * (scale or 1) + mask
            output[first:last, head] = scores.softmax(1) @ v[start:end, group]
            lse[head, first:last] = scores.logsumexp(1)
    return output, lse


@given(st.lists(st.tuples(tokens, st.integers(0, 40)), min_size=1, max_size=8), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_every_row_attends_as_its_conversations_alone(
    drawn: list[tuple[list[int], int]], budget: int, most: int
) -> None:
    distinct = {tuple(ids): min(stem, len(ids) - 1) for ids, stem in drawn}
    sequences = [Encoded(ids, stem, (len(ids) - 1, *([stem - 1] if stem else []))) for ids, stem in distinct.items()]
    torch.manual_seed(0)
    by_token, by_place = torch.randn(3, 4, 4, 8), torch.randn(3, 40, 4, 8)

    def states(sequence: Encoded) -> list[torch.Tensor]:
        """Return queries (1, 4, tokens, 8), and keys and values with two heads."""
        found = [by_token[i, list(sequence.ids)] + by_place[i, : len(sequence.ids)] for i in range(3)]
        return [t.transpose(0, 1)[None, : 2 if i else 4] for i, t in enumerate(found)]

    cpu = torch.device("cpu")
    ways: list[Callable[[list[Segment]], Row]] = [
        lambda row: Row(row, 1, joint=False),
        lambda row: Row(row, 1, joint=True),
        lambda row: VarlenRow(row, 1, cpu, in_loops),
    ]
    for way in ways:
        store = PrefixStore(200, 1, least=4)
        for _ in range(2):
            for segments in plan_rows(sequences, store, budget=budget, most=most, least=4):
                row = way(segments)
                q, k, v = (
                    torch.cat([states(s.sequence)[i][:, :, s.start : s.end] for s in segments], 2) for i in range(3)
                )
                every, chosen = (row.attend(layer, q, k, v, 0.5)[0] for layer in (0, 1))
                wanted = []
                for s in segments:
                    whole = functional.scaled_dot_product_attention(
                        *states(s.sequence), is_causal=True, scale=0.5, enable_gqa=True
                    )
                    wanted.append(whole[0].transpose(0, 1)[s.start : s.end])
                want = torch.cat(wanted)
                assert torch.allclose(every, want, atol=1e-5)
                assert torch.allclose(chosen[row.chosen], want[row.chosen], atol=1e-5)


@given(tokens, tokens)
def test_shared_length_counts_the_leading_tokens_in_common(one: list[int], other: list[int]) -> None:
    want = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert shared_length(one, other) == want
