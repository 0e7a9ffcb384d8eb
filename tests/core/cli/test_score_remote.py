"""``tpo score --remote`` as a process of its own: rewards out, progress apart from them, nothing lost on the way."""

import json
import os
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
def test_what_was_scored_before_an_interrupt_is_kept_beside_the_output_of_before(fakes, source, tmp_path):
    path, lines = source
    waits, release = threading.Event(), threading.Event()

    def stalls(number, path, body):
        if number == 4:
            waits.set()
            release.wait(60)

    target = tmp_path / "out.jsonl"
    target.write_text("from before")
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
    assert run.returncode == 130 and "interrupted" in said and target.read_text() == "from before"
    [part] = tmp_path.glob("*.part")
    assert f"the 4 lines that were scored before it ended are in {part}" in said
    written = read(part.read_text(encoding="utf-8"))
    assert [w.pop("reward") is not None for w in written] == [True] * 4 and written == lines[:4]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("way", ["same", "hard link", "symbolic link", "folder", "appended"])
def test_an_output_that_is_the_input_under_any_name_is_refused_and_the_input_stays(fakes, source, tmp_path, way):
    path, lines = source
    names = {"same": path, "folder": f"{tmp_path}/../{tmp_path.name}/in.jsonl", "appended": "-"}
    other = names.get(way, str(tmp_path / "other.jsonl"))
    if way == "hard link":
        os.link(path, other)
    if way == "symbolic link":
        os.symlink(path, other)
    with fakes.serving(fakes.Tei()) as (url, posts), open(path, "a") as end:
        settings = {"stdout": end} if way == "appended" else {"stdout": subprocess.PIPE}
        done = subprocess.run(
            command(path, "--remote", url, "-o", other), stderr=subprocess.PIPE, text=True, timeout=120, **settings
        )
        assert not posts
    assert done.returncode == 2 and "is the input" in done.stderr and done.stderr.count("\n") == 1
    with open(path, encoding="utf-8") as file:
        assert read(file.read()) == lines


def test_an_input_that_is_cut_while_it_is_read_is_an_error_and_the_output_of_before_stays(fakes, tmp_path):
    path, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    row = json.dumps({"prompt": "Why?", "response": "a" * 5000}) + "\n"  # more than is read ahead
    path.write_text(row * 20)
    target.write_text("from before")

    def cuts(number, where, body):
        if number == 1:
            path.write_text(row)

    with fakes.serving(fakes.Tei(), cuts) as (url, _):
        done = tpo(str(path), "--remote", url, "--batch", "1", "-o", str(target))
    assert done.returncode == 1 and "of 20 lines are scored" in done.stderr
    assert target.read_text() == "from before"


def test_what_a_terminal_obeys_is_escaped_in_the_rows_and_nothing_is_lost(fakes, tmp_path):
    path, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    line = {"prompt": "Why?", "response": "a\x9b31m\u202eb\x7f\x1b[2J é", "note": "\ud800"}
    path.write_text(json.dumps(line) + "\n")
    with fakes.serving(fakes.Tei()) as (url, _):
        done = tpo(str(path), "--remote", url)
        assert tpo(str(path), "--remote", url, "-o", str(target)).returncode == 0
    for text in (done.stdout, target.read_text(encoding="utf-8")):
        assert not set(text) & set("\x9b\u202e\x7f\x1b") and "é" in text
        [row] = read(text)
        assert {name: row[name] for name in line} == line


def test_no_part_is_left_of_a_run_that_ended_well(fakes, source, tmp_path):
    with fakes.serving(fakes.Tei()) as (url, _):
        assert tpo(source[0], "--remote", url, "-o", str(tmp_path / "out.jsonl")).returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


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
