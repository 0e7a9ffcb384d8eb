"""``tpo score`` from the shell, and the benchmark that backs the documentation's table."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tpo_core.cli.main import main
from tpo_core.rewards import HFRewardModel
from tpo_core.rewards.families.table import table

Build = Callable[..., Path]
ROOT = Path(__file__).parents[3]


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_file_of_pairs_is_scored_and_keeps_its_other_fields(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(build("someone"))
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "capital?"}]
    lines = [{"prompt": "capital?", "response": f"Paris {i}", "id": i} for i in range(5)]
    lines.append({"prompt": chat, "response": "Lyon é"})
    source, target = write(tmp_path / "in.jsonl", *lines), tmp_path / "out.jsonl"
    assert main(["score", source, "-o", str(target), "--reward", model, "--batch", "2", "--dtype", "float32"]) == 0
    written = [json.loads(row) for row in target.read_text().splitlines()]
    rewards = HFRewardModel(model).score([line["prompt"] for line in lines], [str(line["response"]) for line in lines])
    assert [w.pop("reward") for w in written] == pytest.approx(rewards, abs=1e-5)
    assert written == lines
    captured = capsys.readouterr()
    assert captured.out == "" and "6/6" in captured.err


def test_pairs_may_come_and_go_through_pipes(
    build: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"prompt": "capital?", "response": "Paris"}\n\n'))
    assert main(["score", "--reward", str(build("someone"))]) == 0
    (row,) = capsys.readouterr().out.splitlines()
    assert isinstance(json.loads(row)["reward"], float)


def test_a_line_that_cannot_be_scored_costs_only_itself(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"prompt": "capital?", "response": "Lyon " * 5000}
    source = write(tmp_path / "in.jsonl", {"prompt": "capital?", "response": "Paris"}, long)
    for batch in ("1", "2"):
        assert main(["score", source, "--reward", str(build("someone")), "--batch", batch]) == 1
        captured = capsys.readouterr()
        good, bad = (json.loads(row) for row in captured.out.splitlines())
        assert good["reward"] is not None and bad["reward"] is None and "tokens long" in bad["failure"]
        assert "1 of 2 lines have no reward" in captured.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"prompt": "a", "response": "b"}\n{"prompt": "a"}',
            "in.jsonl, line 2: not an object with prompt and response",
        ),
        ("[1]", "line 1: not an object"),
        ("\n\n{", "line 3: Expecting property name"),
        ("[" * 100_000, "line 1: "),
        ('{"prompt": [], "response": "b"}', "line 1: prompts[0] must be"),
        ('{"prompt": "a", "response": 5}', "line 1: responses[0] must be text"),
        ('{"prompt": "a", "response": "\\ud800"}', "lone surrogate"),
        ("", "holds no lines"),
    ],
)
def test_a_bad_line_is_named_in_one_line_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "in.jsonl").write_text(text)
    assert main(["score", str(tmp_path / "in.jsonl"), "--reward", "no/such-model"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_file_is_read_as_it_is_scored_and_written_as_it_goes(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(source, *({"prompt": "capital?", "response": f"Paris {i}", "note": "\ud800é"} for i in range(7)))
    seen: list[int] = []
    score = HFRewardModel.score_batch

    def counted(self: HFRewardModel, pairs: Any) -> Any:
        [part] = tmp_path.glob("out.jsonl.*.part")
        seen.append(len(part.read_text().splitlines()))
        return score(self, pairs)

    monkeypatch.setattr(HFRewardModel, "score_batch", counted)
    assert main(["score", str(source), "-o", str(target), "--reward", str(build("someone")), "--batch", "3"]) == 0
    assert seen == [0, 3, 6]
    assert [json.loads(row)["note"] for row in target.read_text().splitlines()] == ["\ud800é"] * 7


def test_wrong_usage_of_score_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", {"prompt": "a", "response": "b"})
    assert main(["score", str(tmp_path / "none.jsonl"), "--reward", "x"]) == 2
    assert main(["score", source, "--reward", "x", "--batch", "0"]) == 2
    assert main(["score", source, "-o", source, "--reward", "x"]) == 2 and Path(source).read_text()
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"'.encode("latin-1"))
    assert main(["score", str(tmp_path / "latin.jsonl"), "--reward", "x"]) == 2
    assert main(["score", source, "--reward", str(tmp_path / "none")]) == 1
    assert "cannot find the reward model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["score", source])


def test_the_family_table_of_the_documentation_is_the_one_of_the_entries() -> None:
    assert table() in (ROOT / "docs" / "reward-models.md").read_text()


def test_the_benchmark_runs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "rewards.py"), "--quick", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"prompt 2000 .*\dx.*e-0\d", done.stdout)


def test_every_form_of_a_reward_scores_a_file(tmp_path, loopback, capsys):
    source = tmp_path / "pairs.jsonl"
    source.write_text('{"prompt": "q", "response": "four"}\n')
    (tmp_path / "mine.py").write_text("def length(prompt, response):\n    return len(response)\n")
    server = loopback()
    judge = ["--reward", "judge:m", "--api-base", server.url]
    for form in (
        ["--reward", f"{tmp_path / 'mine.py'}:length"],
        judge,
        ["--reward", "judge", *judge[2:], "--model", "m"],
    ):
        assert main(["score", str(source), *form]) == 0
        told = json.loads(capsys.readouterr().out)
        assert isinstance(told["reward"], float)
    assert {request["model"] for request in server.requests} == {"m"}
