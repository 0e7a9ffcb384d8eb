"""The scoring engine under load, failure, closing and a small memory."""

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

from tpo_core.errors import ModelError, RewardError
from tpo_core.rewards import EnsembleReward, HFRewardModel, LengthPenalty, Reward
from tpo_core.rewards.hf.worker import Worker
from tpo_core.values import Pair

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


def test_requests_are_merged_up_to_what_fills_a_forward_pass(path: str) -> None:
    with HFRewardModel(path, device="cpu", max_batch_tokens=100) as reward:
        assert reward.merges and reward.merges_up_to == 400
        assert LengthPenalty(reward, per_word=0.1).merges_up_to == 400
        assert EnsembleReward([reward, lambda prompt, response: 0.0]).merges_up_to == 400


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
    with reward:
        assert reward.score("capital?", ["Paris"]) == before
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
        "import sys; from tpo_core.rewards import HFRewardModel; from tpo_core.values import Pair\n"
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
