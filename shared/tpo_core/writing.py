"""Write a file whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import IO

from tpo_core.errors import InvalidInputError

__all__ = ["replacing", "same_file"]


@contextmanager
def replacing(path: str, option: str, *, keep: bool = False) -> Iterator[IO[str]]:
    """Open a text file that takes the place of ``path`` when the block ends well, and not before.

    It is written beside ``path`` (its ``name`` says where) and then renamed, so that nobody ever reads half of it. When
    the block raises, what stood at ``path`` stays, and what was written goes. A symbolic link stays one. What is no
    regular file, such as a pipe or ``/dev/null``, is written to as it is.

    Args:
        path: What to write, in UTF-8.
        option: What the user called it, for the error.
        keep: Leave what was written where it is when the block raises, unless it is empty.

    Raises:
        InvalidInputError: It cannot be written.
    """
    if _is_device(path):
        with _opened(path, "w", path, option) as file:
            yield file
        return
    target = os.path.realpath(path)
    with _opened(_beside(target), "x", path, option) as file:
        try:
            yield file
            _finish(file, target, path, option)
        except BaseException:
            _clear(file, keep)
            raise


def same_file(one: str | int, other: str | int) -> bool:
    """Return whether two paths or descriptors lead to one file, under whatever names; False where one is missing."""
    with suppress(OSError, ValueError):
        return os.path.samestat(os.stat(one), os.stat(other))
    return False


def _opened(name: str, mode: str, path: str, option: str) -> IO[str]:
    if os.path.isdir(path):
        raise InvalidInputError(f"{option}: {path} is a folder")
    try:
        return open(name, mode, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, option, error) from error


def _is_device(path: str) -> bool:
    if os.path.abspath(path).startswith(("/dev/", "/proc/")):  # /dev/stdout may lead to a file that is still open
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _beside(target: str) -> str:
    folder, name = os.path.split(target)
    return os.path.join(folder, f"{name[:50]}.{token_hex(4)}.part")


def _finish(file: IO[str], target: str, path: str, option: str) -> None:
    try:
        file.flush()
        os.fsync(file.fileno())  # or a crash of the machine could leave the new name with nothing in it
        _dress(file.name, target)
        file.close()
        os.replace(file.name, target)
    except OSError as error:
        raise _unwritable(path, option, error) from error


def _dress(name: str, target: str) -> None:
    """Give a new file the rights and, where that is allowed, the owner of the one it replaces."""
    with suppress(FileNotFoundError):
        there = os.stat(target)
        if hasattr(os, "chown"):
            with suppress(OSError):
                os.chown(name, there.st_uid, there.st_gid)
        os.chmod(name, stat.S_IMODE(there.st_mode))


def _clear(file: IO[str], keep: bool) -> None:
    with suppress(OSError, ValueError):
        file.close()
    with suppress(OSError):
        if not keep or not os.path.getsize(file.name):
            Path(file.name).unlink()


def _unwritable(path: str, option: str, error: OSError) -> InvalidInputError:
    return InvalidInputError(f"{option}: {path} cannot be written: {error.strerror or error}")
