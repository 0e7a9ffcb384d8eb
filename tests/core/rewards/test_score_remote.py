"""``tpo score --remote`` as a process of its own: rewards out, progress apart from them, nothing lost on the way."""

import json
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest

JSON = "application/json"


def command(*arguments):
    return [sys.executable, "-m", "tpo_core.cli", "score", *arguments]


def tpo(*arguments, **settings):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, **settings)


@pytest.fixture
def source(tmp_path):
    """A file of seven lines, and its objects."""
    chat = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Why?"}]
    lines = [{"prompt": "Why?", "response": f"answer {i} é", "id": i} for i in range(6)]
    lines.append({"prompt": chat, "response": "Because."})
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return str(path), lines


def read(text):
    return [json.loads(row) for row in text.splitlines()]


def test_a_file_is_scored_on_replicas_with_a_key_and_progress_stays_out_of_the_rewards(fakes, source):
    path, lines = source
    with fakes.serving(fakes.Vllm()) as (one, first), fakes.serving(fakes.Vllm()) as (two, second):
        done = tpo(path, "--remote", one, "--remote", two, "--header", "Authorization: Bearer 0123456789")
        assert done.returncode == 0, done.stderr
        assert {h.get("Authorization") for h in first.headers + second.headers} == {"Bearer 0123456789"}
    written = read(done.stdout)
    turns = [p if isinstance(p, list) else [{"role": "user", "content": p}] for p in (w["prompt"] for w in written)]
    answers = [{"role": "assistant", "content": w["response"]} for w in written]
    wanted = [fakes.raw(fakes.shown_messages([*t, a])) for t, a in zip(turns, answers, strict=True)]
    assert [w.pop("reward") for w in written] == pytest.approx(wanted) and written == lines
    assert "7/7" in done.stderr and "scoring" not in done.stdout and "0123456789" not in done.stderr


def test_a_server_that_fails_midway_costs_the_lines_it_failed_on(fakes, source, tmp_path):
    path, lines = source

    def fault(number, path, body):  # one self-test, two batches of two, then nothing but trouble
        return (503, JSON, b'{"error": "overloaded"}', [("Retry-After", "0")]) if number > 3 else None

    target = tmp_path / "out.jsonl"
    with fakes.serving(fakes.Tei(), fault) as (url, _):
        done = tpo(path, "--remote", url, "--batch", "2", "-o", str(target))
    assert done.returncode == 1 and done.stdout == ""
    assert "3 of 7 lines have no reward" in done.stderr and "7/7" in done.stderr
    written = read(target.read_text(encoding="utf-8"))
    assert [{k: w[k] for k in line} for w, line in zip(written, lines, strict=True)] == lines
    assert [w["reward"] is not None for w in written] == [True] * 4 + [False] * 3
    assert all("503" in w["failure"] and url in w["failure"] for w in written[4:])


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process there")
def test_what_was_scored_before_an_interrupt_stays_readable(fakes, source, tmp_path):
    path, lines = source
    waits, release = threading.Event(), threading.Event()

    def stalls(number, path, body):
        if number == 4:
            waits.set()
            release.wait(60)

    target = tmp_path / "out.jsonl"
    with fakes.serving(fakes.Tei(), stalls) as (url, _):
        run = subprocess.Popen(
            command(path, "--remote", url, "--batch", "2", "-o", str(target)),
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        try:
            assert waits.wait(60)
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=30)
        finally:
            release.set()
            run.kill()
    assert run.returncode == 130 and "interrupted" in said
    written = read(target.read_text(encoding="utf-8"))
    assert [w.pop("reward") is not None for w in written] == [True] * 4 and written == lines[:4]


@pytest.mark.parametrize(
    ("app", "message"),
    [(None, "cannot be reached"), ("squashing", "squashes scores to 0..1"), ("mine", "cannot tell what serves")],
)
def test_a_server_that_cannot_score_is_said_in_one_line_before_anything_is_written(
    fakes, source, tmp_path, app, message
):
    apps = {"squashing": fakes.Tei(obey=False), "mine": fakes.Mine(), None: fakes.Mine()}
    target = tmp_path / "out.jsonl"
    with fakes.serving(apps[app]) as (url, _):
        done = tpo(source[0], "--remote", url if app else "http://127.0.0.1:9", "-o", str(target))
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not target.exists()


def test_a_header_without_a_colon_is_wrong_usage(source):
    done = tpo(source[0], "--remote", "http://127.0.0.1:9", "--header", "secret-key")
    assert done.returncode == 2 and "--header must be" in done.stderr and "secret-key" not in done.stderr
