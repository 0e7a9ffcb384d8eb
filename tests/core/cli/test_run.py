"""``tpo run``, ``tpo export`` and ``tpo show`` of a run, as a user runs them, against servers on loopback."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopback import LoopbackServer
from tpo_core.cli.main import main
from tpo_core.runs import RunReader, RunStore

Start = Callable[..., LoopbackServer]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(folder: Path) -> Path:
    """Work in a folder of one's own, with a reward in it."""
    Path("mine.py").write_text("def length(prompt, response):\n    return float(sum(map(ord, response)))\n")
    return folder


def write(*rows: Any, name: str = "prompts.jsonl") -> None:
    Path(name).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def questions(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"question {n}?", "topic": n} for n in range(count)]


def run(server: LoopbackServer | str, *args: str, prompts: str = "prompts.jsonl") -> int:
    url = server if isinstance(server, str) else server.url
    small = ["--width", "2", "--depth", "1", "--reward", "mine.py:length", "--api-base", url]
    return main(["run", prompts, "-o", "out", *small, *args])


def exported(kind: str = "answers", *args: str) -> list[dict[str, Any]]:
    assert main(["export", "out", "--to", "made.jsonl", "--kind", kind, *args]) == 0
    return [json.loads(line) for line in Path("made.jsonl").read_text().splitlines()]


def test_every_prompt_is_answered_and_the_same_command_again_asks_nothing(loopback: Start, capsys: Capture) -> None:
    write(*questions(12))
    server = loopback()
    assert run(server) == 0
    assert "out: 12 of 12 queries answered" in capsys.readouterr().out
    asked = len(server.requests)
    assert run(server) == 0 and len(server.requests) == asked
    rows = exported("answers", "--with-rows")
    assert [(r["id"], r["row"]["topic"]) for r in rows] == [(str(n + 1), n) for n in range(12)]
    assert {tuple(row) for row in exported("texts")} == {("id", "response")}
    assert all(row["score_chosen"] > row["score_rejected"] for row in exported("preferences"))


def test_the_run_is_shown_in_figures_and_as_a_page(loopback: Start, capsys: Capture) -> None:
    write(*questions(3))
    run(loopback(), "--quiet")
    assert capsys.readouterr().out == ""
    assert main(["show", "out", "--html", "page.html"]) == 0
    out = capsys.readouterr().out
    assert "queries: 3" in out and "gain: " in out and "under way" not in out
    page = Path("page.html").read_text()
    assert "<title>out</title>" in page and "mine.py:length" in page  # the settings stand under the heading
    assert main(["show", "out", "--policy-params", "8B"]) == 0
    assert "operations: " in (out := capsys.readouterr().out) and "beside best-of-N" in out
    assert main(["show", "out", "--policy-params", "big"]) == 2
    assert "write 8B" in capsys.readouterr().err
    assert main(["show", "out", "out"]) == 2
    assert "show one run at a time" in capsys.readouterr().err


def test_an_openai_batch_sets_its_own_sampling_and_model(loopback: Start) -> None:
    message = [{"role": "user", "content": "why?"}]
    write(
        {"custom_id": "a", "body": {"model": "smol", "messages": message, "temperature": 0.1}},
        {"custom_id": "b", "body": {"messages": message, "max_tokens": 7}},
    )
    server = loopback()
    assert run(server) == 0
    sampled = [r for r in server.requests if len(r["messages"]) == 1]
    assert Counter((r.get("temperature"), r.get("max_tokens")) for r in sampled) == {(0.1, None): 1, (0.7, 7): 1}
    [first, second] = exported("openai")
    assert first["custom_id"] == "a" and second["response"]["body"]["choices"][0]["message"]["content"]


def test_a_field_and_a_system_prompt_are_taken_as_named(loopback: Start) -> None:
    Path("prompts.csv").write_text("question,name\nwhy?,x\n")
    server = loopback()
    assert (
        run(server, "--prompt-field", "question", "--id-field", "name", "--system", "Be brief.", prompts="prompts.csv")
        == 0
    )
    assert [m["content"] for m in server.requests[0]["messages"]] == ["Be brief.", "why?"]
    assert [row["id"] for row in exported()] == ["x"]


def test_one_query_that_fails_costs_itself_alone_and_is_tried_again_when_told(loopback: Start, capsys: Capture) -> None:
    write(*questions(4))
    broken = [True]

    def answer(request: dict[str, Any], number: int) -> Any:
        bad = broken and "question 2?" in request["messages"][-1]["content"]
        return (400, {"error": {"message": "too long for the model"}}) if bad else f"answer {number}"

    server = loopback(answer)
    assert run(server) == 1
    assert "1 failed: tpo export out --kind failures" in capsys.readouterr().out
    [failure] = exported("failures")
    assert failure["line"] == 3 and "too long for the model" in failure["message"]
    asked = len(server.requests)
    assert run(server) == 1 and len(server.requests) == asked  # it is not asked again unless told
    broken.clear()
    assert run(server, "--retry-failed") == 0
    assert len(exported()) == 4 and not exported("failures")


# -- what is refused before anything is written or asked ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "args", "what"),
    [
        ([], [], "holds no prompts: it is empty"),
        ([{"prompt": "a"}, "nonsense"], [], "line 2: it is no JSON"),
        ([{"prompt": "a"}, {"text": "b"}], [], "line 2: it has no field 'prompt' or 'messages'"),
        ([{"id": 1, "prompt": "a"}, {"id": 1, "prompt": "b"}], [], "line 2: the id '1' was used in line 1"),
        ([{"prompt": "a"}], ["--model", "big"], "has no model 'big'; it has smol"),
        ([{"prompt": "a"}], ["--critic", "big"], "has no model 'big'; it has smol"),
        ([{"prompt": "a"}], ["--width", "0"], "width must be an integer of at least 1"),
        ([{"prompt": "a"}], ["--max-concurrency", "0"], "--max-concurrency must be at least 1"),
        ([{"prompt": "a"}], ["--reward", "mine.py:width"], "--reward mine.py:width cannot be imported"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_written(
    loopback: Start, capsys: Capture, rows: list[Any], args: list[str], what: str
) -> None:
    write(*rows)
    server = loopback()
    assert run(server, *args) in (1, 2)
    error = capsys.readouterr().err
    assert what in error and error.count("\n") == 1
    assert not Path("out").exists() and not server.requests


def test_a_server_that_is_not_there_is_one_line_before_anything_is_written(capsys: Capture) -> None:
    write(*questions(1))
    assert run("http://127.0.0.1:9/v1") == 1
    assert "no server answers at http://127.0.0.1:9/v1" in capsys.readouterr().err and not Path("out").exists()


def test_bad_lines_are_counted_where_that_is_allowed(loopback: Start, capsys: Capture) -> None:
    write({"id": 1, "prompt": "a"}, "nonsense", {"id": 1, "prompt": "b"}, {"id": 2, "prompt": "c"})
    assert run(loopback(), "--skip-bad-lines") == 0
    assert "2 of 2 queries answered" in (out := capsys.readouterr().out) and "2 lines left out" in out


def test_other_settings_and_other_prompts_are_refused_with_what_differs(loopback: Start, capsys: Capture) -> None:
    write(*questions(2))
    server = loopback()
    run(server)
    asked = len(server.requests)
    assert run(server, "--temperature", "0.2") == 1
    assert "other settings (temperature was 0.7, is 0.2)" in capsys.readouterr().err
    write({"prompt": "another"}, *questions(2)[1:])
    assert run(server) == 1
    assert "begun with other prompts: line 1 ('1') asks something else" in capsys.readouterr().err
    assert len(server.requests) == asked


def test_a_second_process_on_the_same_folder_is_refused(loopback: Start, capsys: Capture) -> None:
    write(*questions(1))
    with RunStore.open("out"):
        assert run(loopback()) == 1
    assert "out is in use by process" in capsys.readouterr().err


# -- what ends a run ---------------------------------------------------------------------------------------------------


def test_a_server_that_goes_away_ends_the_run_and_no_query_is_written_off(loopback: Start, capsys: Capture) -> None:
    write(*questions(40))

    def answer(request: dict[str, Any], number: int) -> Any:
        return (404, {"error": {"message": "gone"}}) if number > 20 else f"answer {number}"

    assert run(loopback(answer), "--max-concurrency", "4") == 1
    assert "smol cannot be used" in (error := capsys.readouterr().err) and error.count("\n") == 1
    with RunReader("out") as made:
        counts = made.counts
    assert counts.failed == 0 < counts.done < counts.queries < 40  # nor was the rest of the file burnt through
    assert run(server := loopback()) == 0
    assert len(exported()) == 40
    assert len(server.requests) <= 40 * 4 - 10  # 20 answers, of at most two a request, are not asked for again


def test_a_reward_that_always_fails_ends_the_run(loopback: Start, capsys: Capture) -> None:
    write(*questions(40))
    Path("bad.py").write_text("def score(prompt, response):\n    raise ZeroDivisionError('in the reward')\n")
    assert run(loopback(), "--reward", "bad.py:score", "--max-concurrency", "2") == 1
    assert "in the reward" in capsys.readouterr().err
    with RunReader("out") as made:
        assert made.counts.failed == 0 and made.counts.queries < 40


def test_prompts_come_from_standard_input(loopback: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    write(*questions(3))
    with open("prompts.jsonl") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert run(loopback(), prompts="-") == 0
    assert len(exported()) == 3


def test_an_overloaded_server_is_asked_again_and_no_query_fails(loopback: Start) -> None:
    write(*questions(6))
    server = loopback(failures=[200, 429, 503, 429])
    assert run(server, "--max-concurrency", "4") == 0
    assert len(exported()) == 6 and len(server.requests) == 6 * 4 + 3


def test_a_judge_that_is_overloaded_for_a_moment_costs_no_query(loopback: Start) -> None:
    write(*questions(2))
    busy = [429, 503]

    def answer(request: dict[str, Any], number: int) -> Any:
        if request.get("logprobs") and busy:
            return busy.pop(), {"error": {"message": "busy"}}
        return "Yes" if request.get("logprobs") else f"answer {number}"

    assert run(loopback(answer), "--reward", "judge") == 0
    assert not busy and {row["stop_reason"] for row in exported()} <= {"depth", "no_contrast"}


# -- budgets of a run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--total-calls", "33"], "max_calls"),  # whole queries take six calls each: one is on its way in the end
        (["--total-tokens", "250"], "max_tokens"),
        (["--total-dollars", "0.1", "--price", "400,400"], "max_dollars"),
        (["--total-seconds", "0.000001"], "deadline"),
    ],
)
def test_a_budget_ends_the_run_with_the_best_so_far_and_a_larger_one_goes_on(
    loopback: Start, capsys: Capture, args: list[str], reason: str
) -> None:
    write(*questions(30))
    server = loopback(lambda request, number: f"answer {number}")
    assert run(server, *args, "--max-concurrency", "4") == 1
    assert f"budget is used up ({reason})" in capsys.readouterr().out
    with RunReader("out") as made:
        done, asked = list(made.finished()), len(server.requests)
    assert asked < 60 and len(done) < 30 and {d.trajectory.stop_reason for d in done} <= {"depth", reason}
    assert (reason == "deadline") or any(d.trajectory.stop_reason == reason for d in done)
    assert run(server, *args[2:]) == 0
    assert len(exported()) == 30


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["--total-tokens", "0"], "--total-tokens must be above 0"),
        (["--price", "cheap"], "--price must be two numbers"),
        (["--total-dollars", "1"], "no price is known for smol; give it with --price"),
    ],
)
def test_a_budget_that_is_none_is_refused(loopback: Start, capsys: Capture, args: list[str], what: str) -> None:
    write(*questions(1))
    assert run(loopback(), *args) == 2
    assert what in capsys.readouterr().err and not Path("out").exists()
