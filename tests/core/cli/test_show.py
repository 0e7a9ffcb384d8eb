"""``tpo show``: trajectories that were saved, in figures or as a page."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tpo_core import Candidate, TPOConfig, Trajectory, run_many
from tpo_core.cli.main import main
from tpo_core.testing import RubricReward, SimulatedPolicy

ONE = Trajectory("why?", (Candidate("because", reward=1.0), Candidate("so \x1b[31mit is", reward=2.5, step=1, index=1)))


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    trajectories = run_many([f"q{i}" for i in range(12)], SimulatedPolicy(), RubricReward(), TPOConfig(depth=1))
    path = tmp_path / "run.jsonl"
    path.write_text("".join(t.to_json() + "\n" for t in trajectories), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("indent", [None, 2])
def test_one_trajectory_is_a_line_and_its_answer(tmp_path, capsys, indent):
    (tmp_path / "one.json").write_text(ONE.to_json(indent=indent), encoding="utf-8")
    assert main(["show", str(tmp_path / "one.json")]) == 0
    out = capsys.readouterr().out
    assert "2 candidates: reward 1 to 2.5 (gain +1.5)" in out and out.endswith("\nso [31mit is\n")


def test_many_are_figures_and_what_these_cannot_show(run_file, capsys):
    assert main(["show", run_file]) == 0
    out = capsys.readouterr().out
    assert out.startswith("queries: 12\n") and "an update won: " in out and "note: 12 queries with a gain" in out


def test_a_page_is_written_for_one_and_for_many(run_file, tmp_path, capsys):
    (tmp_path / "one.json").write_text(ONE.to_json(), encoding="utf-8")
    for file, sign in ((run_file, 'class="trees"'), (str(tmp_path / "one.json"), 'id="trajectory"')):
        page = tmp_path / "page.html"
        assert main(["show", file, "--html", str(page), "--title", "A <title>"]) == 0
        assert sign in page.read_text(encoding="utf-8") and "A &lt;title&gt;" in page.read_text(encoding="utf-8")


def test_standard_input_and_several_files_are_read_as_one_run(run_file, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(Path(run_file).read_text(encoding="utf-8")))
    assert main(["show", "-", run_file]) == 0
    assert capsys.readouterr().out.startswith("queries: 24\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no trajectory in it"),
        ("hello", "text is not JSON"),
        ('{"a": 1}\n', "line 1: data"),
        (ONE.to_json() + "\n\n{}\n", "line 3: data"),
    ],
)
def test_what_is_no_trajectory_is_named_by_file_and_line(tmp_path, capsys, text, complaint):
    path = tmp_path / "bad.jsonl"
    path.write_text(text, encoding="utf-8")
    assert main(["show", str(path)]) == 2
    error = capsys.readouterr().err
    assert complaint in error and "bad.jsonl" in error and error.count("\n") == 1


def test_a_run_that_breaks_off_leaves_no_half_page_and_no_file_is_overwritten_by_its_own_page(
    run_file, tmp_path, capsys
):
    Path(run_file).write_text(Path(run_file).read_text(encoding="utf-8") + "{}\n", encoding="utf-8")
    assert main(["show", run_file, "--html", str(tmp_path / "page.html")]) == 2
    assert main(["show", run_file, "--html", run_file]) == 2
    assert main(["show", str(tmp_path / "missing"), "--html", str(tmp_path / "page.html")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.jsonl"]
    assert json.loads(Path(run_file).read_text(encoding="utf-8").splitlines()[0])["format"] == 1
