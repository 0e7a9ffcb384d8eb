"""A file is written whole or not at all, whatever stands at its name."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from tpo_core.errors import InvalidInputError
from tpo_core.writing import replacing, same_file

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def fail_midway(path: Path, *, keep: bool = False) -> str:
    names: list[str] = []

    def write() -> None:
        with replacing(str(path), "-o", keep=keep) as file:
            names.append(file.name)
            file.write("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    return names[0]


def test_the_old_text_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with replacing(str(target), "-o") as file:
        file.write("new é")
        file.flush()
        assert target.read_text() == "old"
    assert target.read_text(encoding="utf-8") == "new é" and os.listdir(tmp_path) == ["out"]


def test_a_block_that_raises_leaves_the_old_text_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    fail_midway(target)
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_what_was_written_may_be_kept_beside_the_old_text(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    assert Path(fail_midway(target, keep=True)).read_text() == "new" and target.read_text() == "old"


def test_a_text_that_utf_8_cannot_hold_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(str(target), "-o") as file:
        file.write("\ud800")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["out"]


@posix
def test_rights_are_those_of_the_old_file_and_else_the_usual_ones(tmp_path: Path) -> None:
    target, usual = tmp_path / "out", tmp_path / "usual"
    usual.touch()
    for wanted in (stat.S_IMODE(usual.stat().st_mode), 0o640):
        with replacing(str(target), "-o") as file:
            file.write("new")
        assert stat.S_IMODE(target.stat().st_mode) == wanted
        target.chmod(0o640)


@posix
def test_a_symbolic_link_stays_one_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "out", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(str(link), "-o") as file:
        file.write("new")
    assert link.is_symlink() and target.read_text() == "new"


@posix
def test_a_pipe_and_the_null_device_are_written_to_as_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    with replacing(str(pipe), "-o") as file:
        file.write("new")
    reader.join(timeout=30)
    assert got == ["new"] and stat.S_ISFIFO(pipe.stat().st_mode)
    with replacing(os.devnull, "-o") as file:
        file.write("new")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("name", [".", "missing/out", "file/out"])
def test_what_cannot_be_written_is_said_under_the_option_s_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(InvalidInputError, match=r"^--save: "), replacing(str(tmp_path / name), "--save"):
        pass
    assert os.listdir(tmp_path) == ["file"]


@posix
def test_one_file_is_known_under_its_other_names(tmp_path: Path) -> None:
    one, other, link = (str(tmp_path / name) for name in ("one", "other", "link"))
    Path(one).write_text("x")
    os.link(one, other)
    os.symlink(one, link)
    assert same_file(one, other) and same_file(one, link)
    Path(tmp_path / "copy").write_text("x")
    assert not same_file(one, str(tmp_path / "copy")) and not same_file(one, str(tmp_path / "missing"))
