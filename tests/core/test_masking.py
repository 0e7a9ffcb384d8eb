"""Keys, passwords and tokens stand in nothing that is said: errors and tracebacks, JSON, logs, the terminal."""

from __future__ import annotations

import base64
import copy
import gc
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo import KEY, PASSWORD, TOKEN, check_nothing_leaks, echoing, everything_said
from tpo_core import TPOConfig, arun, run
from tpo_core.cli.main import main
from tpo_core.errors import GenerationError, InvalidInputError, ModelError, RewardError
from tpo_core.masking import Secrets, hidden_errors, hide, masked, public
from tpo_core.models.litellm_chat import LiteLLMChat
from tpo_core.models.openai_chat import OpenAIChat
from tpo_core.rewards import FunctionReward, JudgeReward, RemoteRewardModel

HELLO = [{"role": "user", "content": "hello"}]
WITH_PASSWORD, WITH_TOKEN = f"http://me:{quote(PASSWORD, safe='')}@", f"?key={TOKEN}"
WAYS: dict[str, dict[str, Any]] = {
    "key": {"api_key": KEY},
    "password": {"before": WITH_PASSWORD},
    "query": {"after": WITH_TOKEN, "api_key": KEY},
    "header": {"extra_headers": {"X-API-Key": KEY, "X-Other": "other-canary"}},
}


Chat = LiteLLMChat | OpenAIChat


@pytest.fixture(params=[LiteLLMChat, OpenAIChat], ids=["litellm", "openai"])
def kind(request: pytest.FixtureRequest) -> type[Chat]:
    """Return the class of a chat model."""
    chosen: type[Chat] = request.param
    return chosen


def chat_of(where: str, way: str, kind: type[Chat] = LiteLLMChat) -> Chat:
    settings = dict(WAYS[way])
    base = f"{settings.pop('before', 'http://')}{where}/v1{settings.pop('after', '')}"
    return kind("openai/smol", api_base=base, max_retries=0, timeout=20, **settings)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Record all that any library logs."""
    loggers = [logging.getLogger(name) for name in ("httpx", "httpx2", "openai", "LiteLLM", "httpcore", "httpcore2")]
    levels = [logger.level for logger in loggers]
    with caplog.at_level(logging.DEBUG):
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        yield caplog
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_the_address_that_an_http_client_logs_is_shown_without_its_password(
    client: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = OpenAIChat("smol", api_base="http://me:canary-1@127.0.0.1:9/v1", api_key="none")
    with caplog.at_level(logging.INFO, client):
        logging.getLogger(client).info("HTTP Request: POST %s", "http://me:canary-1@127.0.0.1:9/v1/chat/completions")
    assert "canary" not in caplog.text and "127.0.0.1" in caplog.text and held.name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_a_server_that_echoes_what_it_was_sent_leaks_nothing_through_a_chat_model(
    kind: type[Chat], way: str, status: int, logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with echoing(status) as where:
        chat = chat_of(where, way, kind)
        with pytest.raises(Exception) as caught:
            chat.chat(HELLO)
        with pytest.raises(Exception) as acaught:
            await chat.achat(HELLO)
    assert "you sent" in str(caught.value) or status == 404
    out, err = capfd.readouterr()
    check_nothing_leaks(everything_said(caught.value), everything_said(acaught.value), repr(chat), out, err)
    check_nothing_leaks(logged.text, *(record.getMessage() for record in logged.records))


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_leaks_through_a_run_its_errors_its_causes_and_its_json(
    kind: type[Chat], way: str, logged: pytest.LogCaptureFixture
) -> None:
    with echoing(401) as where:
        chat, config = chat_of(where, way, kind), TPOConfig(mode="bon", width=2)
        with pytest.raises(GenerationError) as caught:
            run("why?", chat, lambda prompt, response: 1.0, config)
        with pytest.raises(GenerationError) as acaught:
            await arun("why?", chat, lambda prompt, response: 1.0, config)
    assert "you sent" in str(caught.value) and caught.value.causes
    assert "you sent" in caught.value.trajectory.to_json()
    check_nothing_leaks(everything_said(caught.value), everything_said(acaught.value), logged.text)


def test_an_address_with_a_password_is_named_without_it_where_nobody_answers(kind: type[Chat]) -> None:
    chat = kind("openai/smol", api_base=f"{WITH_PASSWORD}127.0.0.1:9/v1{WITH_TOKEN}", max_retries=0)
    with pytest.raises(ModelError, match=r"cannot be used at http://127\.0\.0\.1:9/v1: ") as caught:
        chat.chat(HELLO)
    check_nothing_leaks(everything_said(caught.value))


@pytest.mark.parametrize("way", WAYS)
def test_a_judge_s_server_leaks_nothing_through_the_reward(way: str) -> None:
    with echoing(400) as where, pytest.raises(RewardError, match="you sent") as caught:
        JudgeReward(chat_of(where, way)).score("why?", ["a", "b"])
    check_nothing_leaks(everything_said(caught.value))


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_reward_server_leaks_nothing_through_errors_and_the_client_s_log(
    status: int, logged: pytest.LogCaptureFixture
) -> None:
    with echoing(status) as where:
        reward = RemoteRewardModel(
            f"{WITH_PASSWORD}{where}{WITH_TOKEN}", server="tei", headers={"X-API-Key": KEY}, retries=0, backoff=0.0
        )
        with pytest.raises(RewardError, match="you sent") as caught:
            reward.score("why?", ["a"])
    assert f"http://{where}" in str(caught.value) and f"http://***@{where}" in logged.text
    check_nothing_leaks(everything_said(caught.value), repr(reward), logged.text)


def test_a_reward_s_own_error_is_masked_with_its_causes() -> None:
    secrets = Secrets(api_key=KEY)

    def broken(prompt: str, response: str) -> float:
        try:
            raise KeyError(f"no {KEY}")
        except KeyError as error:
            raise RuntimeError(f"called with {KEY}") from error

    for score in (FunctionReward(broken).score, lambda *a: run(*a[:1], "openai/x", broken)):
        with pytest.raises(Exception) as caught:
            score("why?", ["a"])
        check_nothing_leaks(everything_said(caught.value))
    del secrets


def ask_of(base: str, *more: str) -> list[str]:
    return ["ask", "why?", "--model", "smol", "--api-base", base, "--mode", "bon", "--width", "2", *more]


@pytest.mark.parametrize("after", ["", WITH_TOKEN])
def test_the_terminal_and_the_saved_file_show_no_secret_of_the_server(
    after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TPO_API_KEY", KEY)
    saved = tmp_path / "run.json"
    with echoing(400) as where:
        assert main(ask_of(f"{WITH_PASSWORD}{where}/v1{after}", "--json", "--save", str(saved))) == 1
    assert "you sent" in saved.read_text()
    assert main(ask_of(f"{WITH_PASSWORD}127.0.0.1:9/v1{after}")) == 1
    out, err = capfd.readouterr()
    assert "you sent" in err and "no server answers at http://127.0.0.1:9/v1" in err
    check_nothing_leaks(out, err, saved.read_text())


def test_verbose_shows_addresses_without_what_is_secret_in_them() -> None:
    with echoing(400) as where:
        command = [sys.executable, "-m", "tpo_core.cli", *ask_of(f"{WITH_PASSWORD}{where}/v1", "--verbose")]
        environment = {**os.environ, "TPO_API_KEY": KEY}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1 and f"http://***@{where}/v1/models" in done.stderr  # httpx logs what it asks
    check_nothing_leaks(done.stdout, done.stderr)


def test_the_terminal_shows_no_secret_of_a_reward_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "why?", "response": "a"}\n')
    with echoing(400) as where:
        url = f"{WITH_PASSWORD}{where}{WITH_TOKEN}"
        assert main(["score", str(source), "--remote", url, "--header", f"X-API-Key: {KEY}"]) == 1
    with pytest.raises(SystemExit):
        main(["score", str(source), "--remote", "http://127.0.0.1:9", "--what", f"{WITH_PASSWORD}host"])
    assert main(["ask", "x", "--model", "m/x", "--reward", f"ftp://me:{quote(PASSWORD, safe='')}@host"]) in (1, 2)
    check_nothing_leaks("".join(capfd.readouterr()))


# -- the pieces ------------------------------------------------------------------------------------------------------

SECRETS = st.text(st.characters(categories=["L", "N"]) | st.sampled_from("-_.~ /+='\"\\@:é"), min_size=6, max_size=30)


@given(SECRETS, st.sampled_from([str, repr, lambda s: quote(s, safe=""), quote, lambda s: pickle.dumps(s).hex()]))
def test_a_secret_is_hidden_in_every_way_it_is_commonly_written(secret: str, write: Any) -> None:
    held = Secrets(api_key=secret)
    text = f"before {write(secret)} after"
    if secret.lower() not in ("before", "after", "before after") and secret in text:
        assert secret not in hide(text)
    del held


def test_the_header_that_a_password_becomes_is_hidden_too() -> None:
    held = Secrets(api_base=f"{WITH_PASSWORD}host/v1")
    sent = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert hide(f"Authorization: Basic {sent}") == "Authorization: Basic ***"
    del held


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://me:secret@host/v1", "see http://***@host/v1"),
        ("at 'https://token@host'", "at 'https://***@host'"),
        ("POST http://host/v1?a=1&api_key=secret&b=2", "POST http://host/v1?a=1&api_key=***&b=2"),
        ("?access_token=secret", "?access_token=***"),
        ("{'Authorization': 'Bearer abcdefgh1'}", "{'Authorization': 'Bearer ***'}"),
        ("the bearer of good news", "the bearer of good news"),
        ("http://host/a@b?page=2", "http://host/a@b?page=2"),
        ("mail me@host at http://host", "mail me@host at http://host"),
    ],
)
def test_what_is_plainly_a_credential_is_hidden_whoever_holds_it(text: str, shown: str) -> None:
    assert hide(text) == shown and hide(shown) == shown


def test_a_key_in_the_environment_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEY)
    check_nothing_leaks(hide(f"bad key {KEY}"))


def test_what_stands_for_no_key_and_what_is_too_short_is_left_in_the_words_that_hold_it() -> None:
    held = Secrets(api_key="none", token="abc", headers={"X-Tier": "blue"}, max_tokens=5, tokenizer="org/model")
    assert hide("none of the abc is blue in org/model") == "none of the abc is blue in org/model"
    del held


def test_secrets_are_forgotten_with_their_holder_and_kept_through_copies() -> None:
    held = Secrets(api_key="forgettable")
    kept = pickle.loads(pickle.dumps(copy.deepcopy(held)))  # noqa: S301
    del held
    gc.collect()
    assert hide("forgettable") == "***" and "forgettable" not in repr(kept)
    del kept
    gc.collect()
    assert hide("forgettable") == "forgettable"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:p@ss@host:8000/v1?key=secret#x", "http://host:8000/v1"),
        ("https://host", "https://host"),
        ("http://me:secret@[::1]:8000", "http://[::1]:8000"),
        ("http://me:secret@[bad?key=secret", "[bad"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(address: str, shown: str) -> None:
    assert public(address) == shown


class Stubborn(Exception):
    """An error whose text is not made of its fields."""

    def __str__(self) -> str:
        return f"always {KEY}"


def test_an_error_keeps_its_type_and_fields_and_its_whole_chain_is_masked() -> None:
    class Detailed(ValueError):
        def __init__(self, message: str, body: Any) -> None:
            super().__init__(message)
            self.body, self.status_code = body, 429

    def fail() -> None:
        try:
            try:
                raise OSError(5, f"first {KEY}", f"/tmp/{KEY}")
            except OSError:
                raise LookupError(f"second {KEY}")  # noqa: B904 - so that it is the context alone
        except LookupError as error:
            raise Detailed(f"third {KEY}", {"headers": [KEY, 1]}) from error

    with hidden_errors(api_key=KEY):
        with pytest.raises(Detailed) as caught:
            fail()
        error = masked(caught.value)
    assert error is caught.value and error.status_code == 429 and error.body == {"headers": ["***", 1]}
    check_nothing_leaks("".join(traceback.format_exception(error)), repr(error))
    assert "third ***" in str(error) and "second ***" in str(error.__cause__)


def test_an_error_whose_text_cannot_be_changed_is_replaced_by_its_masked_text() -> None:
    with pytest.raises(RuntimeError) as caught, hidden_errors(api_key=KEY):
        raise Stubborn
    assert "Stubborn: always ***" in str(caught.value)
    check_nothing_leaks(everything_said(caught.value))
    with pytest.raises(InvalidInputError) as caught_outer, hidden_errors(api_key=KEY):
        raise InvalidInputError("outer") from Stubborn()
    assert str(caught_outer.value) == "outer"
    check_nothing_leaks(everything_said(caught_outer.value))


def test_an_error_without_a_secret_is_the_same_with_all_it_holds() -> None:
    error = ValueError("plain", {"a": [1]})
    args = error.args
    assert masked(error) is error and error.args is args
