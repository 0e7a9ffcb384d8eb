"""A reward server on the real stack that most are written in: FastAPI behind uvicorn, compression and all."""

import asyncio
import math
import socket
import threading

import pytest

from tpo_core.rewards import RemoteRewardModel

fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install -e '.[dev]'")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -e '.[dev]'")

QUICK = {"text": lambda pair: f"{pair.prompt}|{pair.response}", "backoff": 0.0, "retries": 1}


@pytest.fixture(scope="module")
def url():
    """A server of OpenRLHF's one path, which counts characters and cannot take a poisoned text."""
    from starlette.middleware.gzip import GZipMiddleware

    app = fastapi.FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=1)

    @app.post("/get_reward")
    async def get_reward(asked: dict = fastapi.Body()):  # noqa: B008  as FastAPI wants it
        if any("poison" in text for text in asked["query"]):
            raise RuntimeError("no")
        return {"rewards": [float(len(text)) for text in asked["query"]]}

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


async def test_it_is_recognised_and_its_scores_are_read(url):
    reward = RemoteRewardModel(url, **QUICK)
    (found,) = reward.selftest()
    assert found.server == "openrlhf" and found.prefers_good
    answers = ["", "ünïcode 漢字 \U0001f600 \x00\u2028", "x" * 10**6]
    wanted = [float(len(f"Why?|{a}")) for a in answers]
    assert reward.score("Why?", answers) == wanted
    assert await asyncio.gather(*[reward.ascore("Why?", answers[:2]) for _ in range(16)]) == [wanted[:2]] * 16


def test_what_it_cannot_score_is_said_and_the_next_is_scored(url):
    reward = RemoteRewardModel(url, batch_size=1, **QUICK)
    good, bad = reward.score("Why?", ["fine", "poison"])
    assert good == 9.0 and math.isnan(bad) and "500: Internal Server Error" in bad.failure
    assert reward.score("Why?", ["fine"]) == [9.0]
