"""Runs whose models are asked by Ray actors, on a real Ray: started once, with the tests' own process connected."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray_held
from environment import forget_models

from loopback import LoopbackServer
from tpo_core import ModelError, TPOConfig, run_many
from tpo_core.cli.main import main
from tpo_core.models.refusals import overloaded, rest_of, serves_nobody
from tpo_core.runs import RunReader
from tpo_core.runs.ray import RayActors, RayPolicy, RayReward, connected

ray = pytest.importorskip("ray")

QUERIES = 10
CONCURRENCY = 4
SMALL = ["--width", "2", "--depth", "1", "--seed", "1", "--reward", "mine.py:score", "--quiet"]
RAY = ["--engine", "ray", "--ray-actors", "2", "--max-concurrency", str(CONCURRENCY)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Run Ray on this machine, with its workers' imports as they are here."""
    environment = pytest.MonkeyPatch()
    environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    environment.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the user's folder
    environment.delenv("RAY_ADDRESS", raising=False)
    try:
        with connected(cpus=2) as here:
            yield here.get_runtime_context().gcs_address
    finally:
        environment.undo()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, with prompts and a reward in it."""
    forget_models(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def score(prompt, response):\n    return float(sum(map(ord, response)) % 101)\n")
    rows = [json.dumps({"prompt": f"question {n}?"}) + "\n" for n in range(QUERIES)]
    Path("prompts.jsonl").write_text("".join(rows))
    return tmp_path


class Server(LoopbackServer):
    """Does something when so many requests have come; says the same to the same request."""

    def __init__(self, moments: Mapping[int, Callable[[], object]] | None = None) -> None:
        super().__init__(lambda request, number: f"answer {sum(map(ord, str(request['messages'])))} {request['seed']}")
        self.asked: list[str] = []
        self._moments, self._noting = moments or {}, threading.Lock()

    def arrive(self, request: dict[str, Any]) -> int:
        with self._noting:
            self.asked.append(json.dumps([request["messages"], request["seed"]]))
            come = len(self.asked)
        if come in self._moments:
            self._moments[come]()
        return super().arrive(request)


def tpo_run(url: str, folder: str, *args: str) -> int:
    return main(["run", "prompts.jsonl", "-o", folder, "--api-base", url, *SMALL, *args])


def made(folder: str) -> dict[str, Any]:
    """Return what a run holds, by its queries' ids: all that does not depend on the time it took."""
    with RunReader(folder) as reader:
        assert reader.counts.open == reader.counts.failed == 0
        found = [(f.item.id, [(c.response, c.reward) for c in f.trajectory.candidates]) for f in reader.finished()]
    assert len(found) == len(dict(found)) == QUERIES
    return dict(found)


def noted(place: Any, places: list[Any]) -> Any:
    places.append(place)
    return place


def test_with_actors_killed_and_the_command_stopped_a_run_is_as_without_ray(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(RayActors, "_started", lambda self, start=RayActors._started: noted(start(self), started))
    with Server() as server:
        assert tpo_run(server.url, "here") == 0
        alone = len(server.asked)
    moments = {8: lambda: ray.kill(started[0].actor), 24: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    with Server(moments) as server:
        assert tpo_run(server.url, "out", *RAY) == 130
        assert server.max_in_flight <= CONCURRENCY
        assert tpo_run(server.url, "out") == 0  # either engine goes on where the other stood
        asked = Counter(server.asked)
    assert made("out") == made("here")
    assert len(asked) == alone and asked.total() <= alone + 2 * CONCURRENCY
    assert len(started) == 4  # two that answer, one that scores, and one in place of the first


def test_a_killed_driver_goes_on_where_it_stood(cluster: str) -> None:
    small = [*SMALL, *RAY, "--ray-actors", "1"]
    command = [sys.executable, "-m", "tpo_core.cli", "run", "prompts.jsonl", "-o", "out", *small]
    driver: list[subprocess.Popen[bytes]] = []
    with Server({14: lambda: driver[0].send_signal(signal.SIGKILL)}) as server:
        driver.append(subprocess.Popen([*command, "--api-base", server.url, "--ray-address", cluster]))
        assert driver[0].wait(120) == -signal.SIGKILL
        with RunReader("out") as reader:
            assert reader.counts.done < QUERIES
        assert tpo_run(server.url, "out", *small) == 0
        asked = Counter(server.asked)
    with Server() as server:
        assert tpo_run(server.url, "here") == 0
        alone = len(server.asked)
    assert made("out") == made("here")
    assert len(asked) == alone and asked.total() <= alone + CONCURRENCY  # what was in flight, and nothing else


def test_what_an_actor_cannot_find_is_one_line_before_anything_is_written(
    cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server() as server:
        assert tpo_run(server.url, "out", *RAY, "--ray-actors", "1", "--reward", "mine.py:other") == 2
        assert "--reward mine.py:other cannot be imported" in capsys.readouterr().err
        assert not server.asked and not Path("out").exists()


def test_any_policy_and_reward_can_be_in_actors_and_the_answers_are_the_same(cluster: str) -> None:
    config, queries = TPOConfig(width=3, depth=1, seed=3), ["How do bees sleep?", "What is a fjord?"]
    with RayActors(ray_held.simulated, 1) as answering, RayActors(ray_held.length_reward, 2) as scoring:
        reward = RayReward(scoring)
        assert reward.name == "length" and reward.score("?", ["a", "abc", "ab"]) == [1.0, 3.0, 2.0]
        there = run_many(queries, RayPolicy(answering), reward, config)
    here = run_many(queries, ray_held.simulated(), ray_held.length_reward(), config)
    assert [[c.response for c in t.candidates] for t in there] == [[c.response for c in t.candidates] for t in here]


async def test_actors_answer_fail_are_cancelled_and_are_replaced(cluster: str, tmp_path: Path) -> None:
    with RayActors(ray_held.Held, 1) as actors:
        text, first = await actors.acall("echo", "text")
        assert text == "text" and actors.call("echo", "text") == (text, first)
        with pytest.raises(ModelError, match="the model is busy") as failed:
            await actors.acall("fail")
        assert overloaded(failed.value) and rest_of(failed.value) == 7.0 and not serves_nobody(failed.value)
        hanging = asyncio.create_task(actors.acall("hang", str(tmp_path / "told")))
        await until(lambda: (tmp_path / "told").exists())
        hanging.cancel()
        await until(lambda: (tmp_path / "told").read_text() == "ended")
        with pytest.raises(ModelError, match="3 Ray actors were lost in the middle of a call"):
            await actors.acall("die")
        assert (await actors.acall("echo", "again"))[1] != first
    with pytest.raises(ModelError, match="there is no model here"):
        RayActors(ray_held.none, 1)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_cluster_without_room_is_one_line(cluster: str) -> None:
    with pytest.raises(ModelError, match=r"no Ray actor with .*'num_gpus': 1.* came up within 0.1 s; the cluster has"):
        RayActors(ray_held.Held, 1, num_gpus=1, wait=0.1)


def test_without_ray_the_command_says_what_to_install_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with Server() as server:
        assert tpo_run(server.url, "out", *RAY) == 2
    assert 'Ray is not installed: pip install "tpo[ray]"' in capsys.readouterr().err
    assert not Path("out").exists()


def test_options_of_the_other_engine_and_out_of_range_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in {
        ("--ray-actors", "2"): "need --engine ray",
        ("--engine", "ray", "--ray-actors", "0"): "--ray-actors must be at least 1",
        ("--engine", "ray", "--ray-reward-gpus", "-1"): "--ray-reward-gpus must not be below 0",
    }.items():
        assert tpo_run("http://127.0.0.1:9/v1", "out", *options) == 2
        assert said in capsys.readouterr().err
