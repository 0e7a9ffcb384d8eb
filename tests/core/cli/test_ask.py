"""The tpo command, run as a user runs it: against servers on loopback, and with the embedded model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from environment import forget_models
from rich.console import Console

from loopback import LoopbackServer
from tpo_core import Candidate, Progress, TPOConfig, Trajectory
from tpo_core.cli.main import main
from tpo_core.cli.seen import better_models
from tpo_core.cli.text import clean, json_line
from tpo_core.cli.view import Show

Start = Callable[..., LoopbackServer]


def speak(request: dict[str, Any], number: int) -> str:
    """Answer as a model does: samples of two lengths, a critique, instructions, rewritten answers."""
    asked = request["messages"][-1]["content"]
    if "Rewrite a response" in asked:
        return f"a much longer and much better answer [bold]{number}[/bold]"
    if "A critique of a response" in asked or "Compare them" in asked:
        return f"remark {number}: be \x1b[31mlonger\x1b[0m"
    return f"answer {'x' * (number + 1)}"


@pytest.fixture
def length(tmp_path: Path) -> str:
    """Write a reward of one's own into a file."""
    (tmp_path / "mine.py").write_text("def length(prompt, response):\n    return float(len(response))\n")
    return f"{tmp_path / 'mine.py'}:length"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_models(monkeypatch)


def ask(server: LoopbackServer, *args: str) -> int:
    return main(["ask", "why?", "--api-base", server.url, "--width", "2", "--depth", "1", *args])


def test_a_run_shows_answers_critique_instructions_and_both_bests(
    loopback: Start, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(loopback(speak), "--reward", length) == 0
    out = capsys.readouterr().out
    order = ["why?", "smol", "first answers", "+9.00  answer", "round 1: why the best", "round 1: instructions"]
    order += ["round 1: new answers", "rewritten: a much longer", "first best (reward +9.00)", "final answer (reward"]
    places = [out.index(text) for text in order]
    assert places == sorted(places)
    assert "6 samples" in out and "tokens" in out


@pytest.mark.parametrize(
    ("options", "titles"),
    [
        (["--mode", "revision"], ["round 1: what the best lacks", "round 1: instructions"]),
        (["--critiques", "2"], ["round 1: why the one is better than the other (+9.00 over +8.00)"]),
        (["--critiques", "2", "--mode", "revision"], ["round 1: what this answer lacks (+8.00)"]),
    ],
)
def test_a_critique_is_headed_by_what_it_is_about(
    options: list[str], titles: list[str], loopback: Start, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(loopback(speak), "--reward", length, *options)
    out = capsys.readouterr().out
    assert all(title in out for title in titles), out


def test_model_text_cannot_command_the_terminal_or_style_the_view(
    loopback: Start, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(loopback(speak), "--reward", length)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "[31mlonger" in out
    assert "[bold]" in out


def test_what_is_logged_cannot_command_the_terminal_either(
    loopback: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text(
        "def score(prompt, response):\n"
        "    import logging\n"
        "    logging.getLogger('tpo_core.mine').warning('heard %s', 'a\\x9b31m\\u202eb')\n"
        "    return 1.0\n"
    )
    command = [sys.executable, "-m", "tpo_core.cli", "ask", "why?", "--verbose", "--mode", "bon", "--width", "2"]
    command += ["--api-base", loopback(speak).url, "--reward", f"{tmp_path / 'bad.py'}:score"]
    assert subprocess.run(command, check=False).returncode == 0
    assert "tpo_core.mine: heard a31mb" in capfd.readouterr().err


UNSAFE = ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\u061c", "\u200f", "\u2028", "\u202e", "\u2066", "\ufffa", "\ud800"]


@pytest.mark.parametrize("mark", UNSAFE)
def test_a_text_is_shown_without_what_a_terminal_obeys_and_written_as_json_without_loss(mark: str) -> None:
    assert clean(f"a{mark}b\n\té😀") == "ab\n\té😀"
    row = json_line({"é": f"a{mark}b\n"})
    assert mark not in row and "é" in row and json.loads(row) == {"é": f"a{mark}b\n"}


def test_on_a_terminal_the_two_bests_stand_side_by_side_and_stay_plain_text() -> None:
    out = io.StringIO()
    show = Show(Console(file=out, force_terminal=True, width=100, color_system=None))
    first = Candidate("the [bold]first[/bold]", reward=1.0)
    final = Candidate("the \x1b]0;title\x07 last\u202e", reward=2.0, step=1, index=1, fresh=False)
    trajectory = Trajectory("q", (first, final))
    with show:
        show.open("why?", "m", "r", TPOConfig(depth=1))
        show.progress(Progress("scored", 1, (first, final), best=final))
        show.close(trajectory)
    lines = out.getvalue().splitlines()
    assert any(
        "first best (reward +1.00)" in line and "final answer (reward +2.00, gain +1.00)" in line for line in lines
    )
    assert any("the [bold]first[/bold]" in line and "the ]0;title last" in line for line in lines)
    assert "]0;title\x07" not in out.getvalue() and "\u202e" not in out.getvalue()


def test_json_is_the_trajectory_and_nothing_else(
    loopback: Start, length: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "run.json"
    assert ask(loopback(speak), "--reward", length, "--json", "--save", str(saved), "--seed", "3") == 0
    out = capsys.readouterr().out
    trajectory = Trajectory.from_json(out)
    assert out.isascii() and trajectory.seed == 3
    assert trajectory.gain > 0 and len(trajectory.candidates) == 4
    assert Trajectory.from_json(saved.read_text(encoding="utf-8")) == trajectory


def test_json_has_the_outcome_in_front_of_the_trajectory(
    loopback: Start, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(loopback(speak), "--reward", length, "--critic", "c", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    trajectory = Trajectory.from_dict(told)
    best = {"response": trajectory.best.response, "reward": trajectory.best.reward, "step": 1}
    assert told["best"] == best and told["gain"] == trajectory.gain > 0
    assert told["diagnosis"] is None and told["error"] is None
    assert told["models"] == {"policy": "smol", "critic": "c", "editor": "smol", "reward": "length"}


def test_json_of_a_run_that_failed_says_why(loopback: Start, length: str, capsys: pytest.CaptureFixture[str]) -> None:
    refusing = loopback(lambda request, number: (401, {"error": {"message": "bad key"}}))
    assert ask(refusing, "--reward", length, "--json") == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert "bad key" in told["error"] and told["error"] in captured.err and told["best"] is None
    assert told["models"]["policy"] == "smol" and len(told["candidates"]) == 2


def test_a_half_surrogate_pair_in_an_answer_is_saved_and_read_again(
    loopback: Start, length: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "run.json"
    server = loopback(lambda request, number: f"answer {number} cut \ud83d")
    assert ask(server, "--reward", length, "--mode", "bon", "--save", str(saved)) == 0
    trajectory = Trajectory.from_json(saved.read_text(encoding="utf-8"))
    assert trajectory.best.response == "answer 0 cut \ud83d"
    assert "answer 0 cut" in capsys.readouterr().out
    assert ask(server, "--reward", length, "--mode", "bon", "--json") == 0
    json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))


def test_a_save_that_fails_leaves_the_file_of_before(
    loopback: Start, length: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "run.json"
    saved.write_text("from before")
    assert main(["ask", "x", "--api-base", "http://127.0.0.1:9/v1", "--save", str(saved)]) == 1
    assert main(["ask", "x", "--save", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err and saved.read_text() == "from before"


def test_settings_reach_the_requests(loopback: Start, length: str) -> None:
    server = loopback(speak)
    args = ["--temperature", "0.2", "--max-tokens", "50", "--system", "Be kind.", "--model", "m/x", "--seed", "1"]
    assert ask(server, "--reward", length, *args) == 0
    first = server.requests[0]
    assert first["messages"][0] == {"role": "system", "content": "Be kind."}
    assert (first["model"], first["temperature"], first["max_tokens"], first["n"]) == ("m/x", 0.2, 50, 2)
    assert "seed" in first


def test_the_other_settings_of_the_loop_have_flags_of_their_own(
    loopback: Start, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = loopback(speak)
    assert ask(server, "--reward", length, "--top-p", "0.9", "--samples-at-once", "1", "--stop-at", "1", "--json") == 0
    assert [request["top_p"] for request in server.requests] == [0.9]
    assert json.loads(capsys.readouterr().out)["stop_reason"] == "stop_at"
    flags = ["--patience", "1", "--min-spread", "0.5", "--max-shown-chars", "100", "--max-total-tokens", "1"]
    assert ask(server, "--reward", length, *flags, "--json") == 0
    assert json.loads(capsys.readouterr().out)["stop_reason"] == "max_tokens"


def test_an_address_without_v1_is_told_where_it_ends(loopback: Start, capsys: pytest.CaptureFixture[str]) -> None:
    base = loopback().url.removesuffix("/v1")
    assert main(["ask", "x", "--api-base", base]) == 1
    assert f"try {base}/v1" in capsys.readouterr().err


def test_better_models_that_can_be_seen_are_named_with_how_to_use_them(loopback: Start) -> None:
    server = loopback()
    seen = better_models({"OLLAMA_HOST": server.url.removesuffix("/v1"), "ANTHROPIC_API_KEY": "secret"})
    assert any(f"--api-base {server.url} --model smol" in line for line in seen)
    assert any("--model anthropic/" in line and "paid for" in line for line in seen)
    assert "secret" not in str(seen) and server.requests == []


def test_the_judge_is_the_same_model_unless_another_is_named(loopback: Start) -> None:
    server = loopback()
    assert ask(server, "--mode", "bon") == 0
    assert {r["model"] for r in server.requests} == {"smol"}
    assert any(r.get("logprobs") for r in server.requests)
    server.clear()
    assert ask(server, "--mode", "bon", "--reward", "judge:other", "--max-calls", "2") == 0
    assert {r["model"] for r in server.requests} == {"smol", "other"}


def test_critic_and_editor_can_be_other_models(loopback: Start, length: str) -> None:
    server = loopback(speak)
    assert ask(server, "--reward", length, "--critic", "c", "--editor", "e") == 0
    assert [r["model"] for r in server.requests] == ["smol", "c", "c", "e"]


def test_the_environment_names_the_server_and_the_query_may_come_from_standard_input(
    loopback: Start, length: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = loopback(speak)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    assert main(["ask", "-", "--mode", "bon", "--width", "2", "--reward", length]) == 0
    assert server.requests[0]["messages"] == [{"role": "user", "content": "from a pipe"}]
    assert "answer xx" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["ask", " "], "query is empty"),
        (["ask", "x", "--width", "0"], "width must be an integer of at least 1"),
        (["ask", "x", "--mode", "best"], "mode must be one of"),
        (["ask", "x", "--reward", "nowhere:nothing"], "--reward nowhere:nothing cannot be imported"),
        (["ask", "x", "--reward", "what is this"], "neither a model name"),
        (["ask", "x", "--model", "missing.gguf"], "missing.gguf cannot be read"),
        (["ask", "x", "--save", "/no/such/folder/run.json"], "there is no folder"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("tpo: ") and error.count("\n") == 1


def test_failures_are_one_line_and_exit_code_1(
    loopback: Start, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = ["ask", "x", "--api-base", "http://127.0.0.1:9/v1"]
    assert main(gone) == 1
    assert "no server answers at http://127.0.0.1:9/v1" in capsys.readouterr().err
    assert ask(loopback(lambda request, number: (401, {"error": {"message": "bad key"}})), "--reward", length) == 1
    captured = capsys.readouterr()
    assert "bad key" in captured.err and captured.err.count("\n") == 1 and "Give Feedback" not in captured.out


def test_what_was_gained_is_shown_when_the_reward_breaks_later(
    loopback: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text("def score(prompts, responses):\n    return [1.0] * min(2, len(responses) - 1)\n")
    assert ask(loopback(speak), "--reward", f"{tmp_path / 'bad.py'}:score") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("tpo: ") and captured.err.count("\n") == 1


def test_ctrl_c_shows_the_best_so_far(loopback: Start, length: str, tmp_path: Path) -> None:
    started = threading.Event()

    def slow(request: dict[str, Any], number: int) -> str:
        text = speak(request, number)
        if text.startswith("remark"):
            started.set()
            time.sleep(2)  # the server dawdles; nobody waits for it
        return text

    server = loopback(slow)
    command = [sys.executable, "-m", "tpo_core.cli", "ask", "why?", "--api-base", server.url, "--reward", length]
    run = subprocess.Popen(
        [*command, "--deadline", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert started.wait(60)
    os.kill(run.pid, 2)
    out, error = run.communicate(timeout=30)
    assert "answer (reward +12.00; no later answer scored higher)" in out and "stopped by cancelled" in out
    assert error == "tpo: interrupted\n"


def test_help_and_version_are_quick_and_load_no_model_library() -> None:
    code = "import sys, tpo_core.cli.main as c\ntry: c.main(['--help'])\nfinally: print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "align one answer" in shown
    assert not [m for m in ("dspy", "litellm", "rich", "torch", "xllamacpp", "httpx") if f"'{m}'" in shown]
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0


def test_a_query_through_an_address_loads_no_library_that_it_does_without(loopback: Start, length: str) -> None:
    """Start-up is imports: DSPy and the resources of OpenAI's client take a second each, litellm five."""
    asked = ["ask", "why?", "--api-base", loopback(speak).url, "--width", "2", "--depth", "1", "--reward", length]
    code = f"import sys, tpo_core.cli.main as c\nassert c.main({asked!r}) == 0\nprint(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(shown.splitlines()[-1].split())
    heavy = {"dspy", "litellm", "langchain_core", "openai.resources", "torch", "transformers", "numpy", "xllamacpp"}
    heavy |= {"tpo_core.report.page", "tpo_core.cli.run", "tpo_core.cli.study"}
    assert "openai.types" in loaded and not heavy & loaded
    assert len(loaded) < 1900  # it was 3,100 with DSPy and all of OpenAI's client


def test_the_embedded_model_answers_with_no_key_and_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["ask", "What is the capital of France? Answer with one word.", "--width", "2", "--depth", "1", "--json"]
    args += ["--max-tokens", "48", "--deadline", "20"]
    assert main(args) == 0
    trajectory = json.loads(capsys.readouterr().out)
    scored = [c for c in trajectory["candidates"] if c["reward"] is not None]
    assert scored and trajectory["reward_usage"]["prompt_tokens"] > 0


def test_what_the_demo_checks_is_shown_below_each_answer(
    loopback: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])  # as make does
    good = "Rub it with oil on a soft cloth. Use coasters."

    def answer(request: dict[str, Any], number: int) -> str:
        said = speak(request, number)
        first = f"{'Polish' if number else 'Rub'} it with oil."
        return good if "better answer" in said else first if said.startswith("answer") else said

    assert ask(loopback(answer), "--reward", "recipes/table.py:checks") == 0
    out = capsys.readouterr().out
    assert 'not met: uses "soft cloth"; uses "coasters"; avoids "polish"' in out
    assert "final answer (reward +1.00, gain +0.40)" in out and out.index("not met") < out.index(good)
