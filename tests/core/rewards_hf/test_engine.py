"""The scoring engine under load, failure, closing and a small memory; and the plan it follows."""

from __future__ import annotations

import asyncio
import copy
import math
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tpo_core.effects import Pair
from tpo_core.errors import ModelError, RewardError
from tpo_core.rewards import HFRewardModel, Reward
from tpo_core.rewards.families.conversation import Encoded
from tpo_core.rewards.hf.attention import looked_up, masked, merged, multiplied
from tpo_core.rewards.hf.checkpoint import Loaded
from tpo_core.rewards.hf.heads import LinearHead
from tpo_core.rewards.hf.packed import PackedForward
from tpo_core.rewards.hf.planning import plan_rows
from tpo_core.rewards.hf.prefixes import Prefix, PrefixStore, shared_length
from tpo_core.rewards.hf.scoring import WindowedForward, choose_forward
from tpo_core.rewards.hf.worker import Worker

Build = Callable[..., Path]


def queries(count: int) -> list[tuple[list[str], list[str]]]:
    """Return prompts and responses, some prompts long and shared, some responses short and doubled."""
    rng = random.Random(0)
    words = [
        "system",
        "user",
        "assistant",
        "capital",
        "France",
        "Paris",
        "city",
        "step",
        "one",
        "two",
        "What",
        "is",
        "the",
    ]
    long = " ".join(rng.choices(words, k=150))
    found = []
    for i in range(count):
        prompt = f"{long} {i % 7}?" if i % 2 else f"{i}?"
        responses = [" ".join(rng.choices(words, k=rng.randint(1, 60))) for _ in range(3)]
        found.append(([prompt] * 4, [*responses, responses[0]]))
    return found


@pytest.fixture
def path(build: Build) -> str:
    return str(build("someone"))


def test_64_threads_and_64_tasks_score_as_one_by_one(path: str) -> None:
    asked = queries(64)
    alone = HFRewardModel(path, max_prefix_bytes=0, max_batch_tokens=1)
    want = [alone.score(*query) for query in asked]
    threaded, merged = HFRewardModel(path), HFRewardModel(path)
    with ThreadPoolExecutor(64) as pool:
        by_threads = list(pool.map(lambda query: threaded.score(*query), asked))

    async def all_at_once() -> list[list[float]]:
        return list(await asyncio.gather(*(merged.ascore(*query) for query in asked)))

    for got in (by_threads, asyncio.run(all_at_once())):
        assert [s for each in got for s in each] == pytest.approx([s for each in want for s in each], abs=1e-4)


def test_only_one_thread_ever_touches_the_model(path: str) -> None:
    seen: set[int] = set()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: seen.add(threading.get_ident()))
    try:
        reward = HFRewardModel(path)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda query: reward.score(*query), queries(8)))
    finally:
        handle.remove()
    assert len(seen) == 1 and threading.get_ident() not in seen


def test_identical_pairs_are_computed_once(path: str) -> None:
    reward = HFRewardModel(path)
    tokens = 0

    def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal tokens
        tokens += args[0].numel() if isinstance(module, torch.nn.Embedding) else 0

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        reward.score("What is the capital?", ["Paris"])
        once, tokens = tokens, 0
        first = reward._worker.submit([Pair("What is the city?", "Paris")] * 5).result()
    finally:
        handle.remove()
    assert len(set(map(float, first))) == 1 and tokens <= once + 1


def test_a_batch_that_fails_fails_alone_and_the_worker_lives_on() -> None:
    class Picky:
        def __init__(self, stopped: Callable[[], bool]) -> None: ...

        def score(self, pairs: list[Pair]) -> list[Reward]:
            if any(p.response == "poison" for p in pairs):
                raise RuntimeError("poison")
            return [Reward(len(p.response)) for p in pairs]

    started, go = threading.Event(), threading.Event()

    class Slow(Picky):
        def score(self, pairs: list[Pair]) -> list[Reward]:
            started.set()
            go.wait()
            return super().score(pairs)

    worker = Worker(Slow, "picky")
    first = worker.submit([Pair("", "first")])
    started.wait()  # the worker is busy: what comes now is merged
    waiting = [worker.submit([Pair("", text)]) for text in ("one", "poison", "three")]
    waiting[0].cancel()
    go.set()
    assert first.result() == [5.0] and waiting[2].result() == [5.0]
    with pytest.raises(RuntimeError, match="poison"):
        waiting[1].result()
    assert worker.submit([Pair("", "after")]).result() == [5.0]
    worker.close()


def test_a_model_that_answers_nan_costs_that_pair_and_nothing_else(build: Build) -> None:
    import safetensors.torch

    folder = build("someone")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (broken,) = transformers.AutoTokenizer.from_pretrained(folder)("#", add_special_tokens=False)["input_ids"]
    tensors["model.embed_tokens.weight"][broken] = math.nan
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    reward = HFRewardModel(str(folder))
    good, bad = reward.score("capital?", ["Paris", "#"])
    assert math.isfinite(good) and math.isnan(bad) and "nan" in bad.failure
    assert reward.score("capital?", ["Paris"])[0] == pytest.approx(good)


def test_a_failing_forward_pass_is_a_reward_error_and_leaves_no_half_filled_prefix(path: str) -> None:
    reward = HFRewardModel(path)
    (want,) = reward.score("What is the capital of France? " * 4, ["Lyon"])

    def fail(module: torch.nn.Module, args: object) -> None:
        if isinstance(module, torch.nn.Embedding):
            raise MemoryError("no room")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(fail)
    try:
        with pytest.raises(RewardError, match="no room"):
            reward.score("What is the capital of Spain? " * 4, ["Paris", "Madrid"])
    finally:
        handle.remove()
    assert reward.score("What is the capital of France? " * 4, ["Lyon"])[0] == pytest.approx(want, abs=1e-5)
    scores = reward.score("What is the capital of Spain? " * 4, ["Paris", "Madrid"])
    assert scores == pytest.approx(HFRewardModel(path).score("What is the capital of Spain? " * 4, ["Paris", "Madrid"]))


@pytest.mark.parametrize("least", [0, 3, 40])
def test_what_the_device_has_no_room_for_is_computed_in_halves(path: str, least: int) -> None:
    query = (["capital? " * 30] * 6, [f"Paris {i} " * (1 + 20 * (i % 2)) for i in range(6)])
    want = HFRewardModel(path).score(*query)
    reward = HFRewardModel(path)

    def small(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        last_layer = getattr(getattr(module, "self_attn", None), "layer_idx", 0) == 1
        if last_layer and args[0].shape[1] > least:  # by then the first layer has left its keys and values
            raise torch.cuda.OutOfMemoryError("no room")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(small)
    try:
        if least:
            assert reward.score(*query) == pytest.approx(want, abs=1e-5)
        else:
            with pytest.raises(RewardError, match="no room"):
                reward.score(*query)
    finally:
        handle.remove()
    assert reward.score(*query) == pytest.approx(want, abs=1e-5)


def test_a_closed_model_is_freed_and_loads_again_when_asked(path: str) -> None:
    reward = HFRewardModel(path)
    before = reward.score("capital?", ["Paris"])
    names = [t.name for t in threading.enumerate()]
    assert f"reward {path}" in names
    reward.close()
    reward.close()
    assert f"reward {path}" not in [t.name for t in threading.enumerate()]
    assert reward.score("capital?", ["Paris"]) == before
    del reward
    assert f"reward {path}" not in [t.name for t in threading.enumerate()]


def test_a_pickled_model_loads_again_where_it_is_used(path: str) -> None:
    reward = HFRewardModel(path)
    again = pickle.loads(pickle.dumps(reward))  # noqa: S301 - our own bytes
    assert again.score("capital?", ["Paris"]) == reward.score("capital?", ["Paris"])
    assert copy.deepcopy(reward) is reward


def test_a_model_that_vanished_is_an_error_for_whoever_asks(build: Build) -> None:
    folder = build("someone")
    reward = HFRewardModel(str(folder))
    reward.close()
    folder.rename(folder.with_name("gone"))
    with pytest.raises(ModelError, match="someone"):
        reward.score("capital?", ["Paris"])
    folder.with_name("gone").rename(folder)
    assert math.isfinite(reward.score("capital?", ["Paris"])[0])


def test_the_interpreter_exits_while_a_model_is_loaded_and_busy(path: str) -> None:
    code = (
        "import sys; from tpo_core.rewards import HFRewardModel; from tpo_core.effects import Pair\n"
        "reward = HFRewardModel(sys.argv[1])\n"
        "reward._worker.submit([Pair(f'{i} capital? ' * 20, 'Paris ' * 20) for i in range(3)])\n"
        "reward._worker.submit([Pair(f'{i} city? ' * 20, 'Paris ' * 20) for i in range(500)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_told_at_once_that_it_has_no_model(path: str) -> None:
    code = (
        "import os, sys; from tpo_core.rewards import HFRewardModel\n"
        "from tpo_core.errors import ModelError\n"
        "reward = HFRewardModel(sys.argv[1]); reward.score('capital?', ['Paris'])\n"
        "if os.fork() == 0:\n"
        "    try: reward.score('capital?', ['Paris'])\n"
        "    except ModelError as error: print('child:', error, flush=True)\n"
        "    reward.close(); sys.exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), reward.score('capital?', ['Paris'])[0] is not None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], timeout=100, capture_output=True, text=True)
    assert "forked" in done.stdout and "in each process" in done.stdout and done.stdout.endswith("7 True\n"), done


def test_event_loops_come_and_go_and_cancelled_tasks_cost_nothing(path: str) -> None:
    reward = HFRewardModel(path)
    want = HFRewardModel(path).score("capital?", ["Paris"])

    async def cancelled() -> None:
        tasks = [asyncio.create_task(reward.ascore(f"{i} capital? " * 20, ["Paris " * 20])) for i in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*tasks, return_exceptions=True))

    for _ in range(2):
        asyncio.run(cancelled())
        assert asyncio.run(reward.ascore("capital?", ["Paris"])) == pytest.approx(want, abs=1e-5)


def test_closing_while_threads_score_loses_no_answer(path: str) -> None:
    reward = HFRewardModel(path)
    asked = queries(12)
    want = [HFRewardModel(path).score(*query) for query in asked[:1]]
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(reward.score, *query) for query in asked]
        reward.close()
        scores = [answer.result() for answer in answers]
    assert scores[0] == pytest.approx(want[0], abs=1e-4) and len(scores) == 12


def test_code_that_tries_to_exit_costs_its_caller_an_error_and_not_the_thread() -> None:
    class Leaving:
        def __init__(self, stopped: Callable[[], bool]) -> None: ...

        def score(self, pairs: list[Pair]) -> list[Reward]:
            if pairs[0].response == "exit":
                raise SystemExit(3)
            return [Reward(1.0) for _ in pairs]

    worker = Worker(Leaving, "leaving")
    with pytest.raises(ModelError, match=r"SystemExit\(3\)"):
        worker.submit([Pair("", "exit")]).result(timeout=60)
    assert worker.submit([Pair("", "stay")]).result(timeout=60) == [1.0]
    worker.close()


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, tpo_core, tpo_core.rewards.families; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_without_the_extra_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tpo_core.rewards import HFRewardModel\n"
        "try: HFRewardModel('a/b')\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=100, capture_output=True, text=True)
    assert done.stdout.startswith("ModelError") and 'pip install "tpo[hf]"' in done.stdout


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
    for way in (masked, merged, multiplied, *([looked_up] if tokens_ == 1 else [])):
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


@given(tokens, tokens)
def test_shared_length_counts_the_leading_tokens_in_common(one: list[int], other: list[int]) -> None:
    want = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert shared_length(one, other) == want
