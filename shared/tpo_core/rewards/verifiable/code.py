"""Code by its tests: an answer's program is run with them in a process of its own, with limits.

An answer is untrusted, and running it is a risk that limits make smaller and do not take away: see ``CodeTestsReward``.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.cache_keys import made_of
from tpo_core.errors import InvalidInputError, RewardError
from tpo_core.prompts.rendering import show_query
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.concurrency import each, settle
from tpo_core.values import Pair, Reward

__all__ = ["CodeTestsReward"]

_HARNESS = Path(__file__).with_name("harness.py")
_FENCE = re.compile(r"^```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL | re.IGNORECASE)
_LONGEST_RESULTS = 2**20
_WAIT = 10
"""How much longer than its processor time an answer may take: other work on the machine is not its fault."""
_SHOWN = 3
"""Failed tests that the feedback names."""

Tests = str | Mapping[str, str] | Callable[[Pair], str]


@dataclass(frozen=True)
class _Suite:
    """Tests, taken apart: what comes before them, and each one's name and call."""

    setup: str
    names: tuple[str, ...]
    calls: tuple[str, ...]


class CodeTestsReward(RewardModel):
    """The share of tests that an answer's Python code passes, from 0 to 1; its feedback names the first that fail.

    The code is the answer's last fenced block, or all of it where there is none. Tests are Python source: functions
    whose names begin with ``test_``, and ``assert`` statements outside of functions, each of which is one test.

    **What is kept from the code**: the environment's variables (keys, say), this process, its open files and its
    folder. It runs in a process of its own in an empty folder, with bounded processor time, time, memory and file size;
    a user other than root can start no process or thread. **What is not**: the network, and files that this user may
    read or write; as root, processes that leave their group outlive the limits. Nor is it kept from its own tests,
    which it can look up, or deceive with objects that equal everything. Where answers may be hostile, give a
    ``sandbox``, or run all of it in a container without network and keys.

    Args:
        tests: The same for all, or by the query's text, or a function of the ``Pair``.
        seconds: Most processor time of one answer with all its tests; by the clock, ten times as much.
        megabytes: Most memory of it.
        workers: How many run at once.
        sandbox: A command that runs what follows it, such as ``("bwrap", "--unshare-all", ..., "--")``.
        name: How errors and feedback keys call it.

    Raises:
        InvalidInputError: Tests cannot be read or hold none, or a limit is out of its range.

    Example:
        >>> reward = CodeTestsReward("assert add(1, 2) == 3\\nassert add(-1, 1) == 0")
        >>> [score] = reward.score("Write add.", ["def add(a, b):\\n    return abs(a) + b"])
        >>> float(score), score.feedback
        (0.5, '1 of 2 tests failed: assert add(-1, 1) == 0 (AssertionError)')
    """

    def __init__(
        self,
        tests: Tests,
        *,
        seconds: float = 5.0,
        megabytes: int = 512,
        workers: int = 2,
        sandbox: Sequence[str] = (),
        name: str = "tests",
    ) -> None:
        if os.name != "posix":
            raise InvalidInputError("CodeTestsReward needs limits that only POSIX systems have; use Linux or WSL")
        for what, value, least in (("seconds", seconds, 0.1), ("megabytes", megabytes, 64), ("workers", workers, 1)):
            if not isinstance(value, (int, float)) or not value >= least:
                raise InvalidInputError(f"{what} must be at least {least}, not {value!r}")
        if isinstance(sandbox, str):
            raise InvalidInputError("sandbox must be a list of words, not one text")
        self._tests = tests
        self._suites: dict[str, _Suite] = {}
        for source in [tests] if isinstance(tests, str) else tests.values() if isinstance(tests, Mapping) else []:
            self._suite(source)
        self._seconds, self._bytes, self._workers = seconds, int(megabytes * 2**20), workers
        self._sandbox = tuple(sandbox)
        self.name = name

    @property
    def cache_key(self) -> str | None:
        """Return the tests and limits, where the tests are known; see ``RewardModel``."""
        if callable(self._tests):
            return None
        tests = self._tests if isinstance(self._tests, str) else json.dumps(dict(self._tests), sort_keys=True)
        return made_of("code tests", tests=tests, seconds=self._seconds, bytes=self._bytes, sandbox=list(self._sandbox))

    def check(self) -> None:
        """Run a program that passes its test; see ``RewardModel``.

        Raises:
            RewardError: It does not pass: the sandbox cannot be started, say, or the memory is too small.
        """
        found = self._run("one = 1", _read("assert one == 1"))
        if found.get(0, "nothing came back") is not None:
            told = found.get(-1) or found.get(0, "nothing came back")
            raise RewardError(
                f"reward {self.name!r} cannot run a program of one line ({told}); is the sandbox right, and are "
                f"{self._seconds:g} s and {self._bytes >> 20} megabytes enough for Python to start?"
            )

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Run each answer; see ``RewardModel``."""
        return settle(each(self._score, pairs, self._workers), self.name)

    def _score(self, pair: Pair) -> Reward:
        suite = self._suite(self._of(pair))
        blocks = _FENCE.findall(pair.response)
        found = self._run(blocks[-1] if blocks else pair.response, suite)
        if told := found.get(-1, "it did not end"):
            return Reward(0.0, feedback=f"the code could not be run: {told}", heads={"runs": 0.0, "passed": 0.0})
        missing = f"did not end within {self._seconds:g} s, or ended the program"
        failed = [(n, t) for place, n in enumerate(suite.names) if (t := found.get(place, missing)) is not None]
        share = 1 - len(failed) / len(suite.names)
        shown = "; ".join(f"{name} ({told})" for name, told in failed[:_SHOWN])
        feedback = f"{len(failed)} of {len(suite.names)} tests failed: {shown}" if failed else None
        return Reward(share, feedback=feedback, heads={"runs": 1.0, "passed": share})

    def _of(self, pair: Pair) -> str:
        if isinstance(self._tests, str):
            return self._tests
        if callable(self._tests):
            return self._tests(pair)
        if (asked := show_query(pair.asked)) not in self._tests:
            raise RewardError(
                f"there are no tests for this query, of {len(asked)} characters; give them by the query's whole text"
            )
        return self._tests[asked]

    def _suite(self, source: str) -> _Suite:
        if source not in self._suites:
            self._suites[source] = _read(source)
        return self._suites[source]

    def _run(self, code: str, suite: _Suite) -> dict[int, str | None]:
        """Run code with its tests; returns what each raised, by its place, of those that ended."""
        mark = secrets.token_hex(16)
        asked = {
            "code": code, "setup": suite.setup, "tests": suite.calls, "mark": mark, "bytes": self._bytes,
            "seconds": math.ceil(self._seconds),
        }  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="tpo-") as folder, tempfile.TemporaryFile() as results:
            with tempfile.TemporaryFile() as given:
                given.write(json.dumps(asked).encode("utf-8", "surrogatepass"))
                given.seek(0)
                command = [*self._sandbox, sys.executable, "-I", "-B", str(_HARNESS)]
                process = _started(
                    command, stdin=given, stdout=results, stderr=subprocess.DEVNULL, cwd=folder,
                    env={"PATH": os.defpath, "LANG": "C.UTF-8"}, start_new_session=True,
                )  # fmt: skip
            with suppress(subprocess.TimeoutExpired):
                process.wait(_WAIT * self._seconds)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            results.seek(0)
            return _results(results.read(_LONGEST_RESULTS), mark)


def _started(command: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, **settings)
    except OSError as error:
        raise RewardError(f"{command[0]} cannot be started: {error}") from error


def _results(written: bytes, mark: str) -> dict[int, str | None]:
    """Read what came back: the first line of each step that has the mark; all else is the answer's own."""
    found: dict[int, str | None] = {}
    for line in written.decode("utf-8", "replace").splitlines():
        given, _, rest = line.partition(" ")
        place, _, told = rest.partition(" ")
        if given == mark:
            with suppress(ValueError):
                found.setdefault(int(place), json.loads(told))
    return found


def _read(source: Any) -> _Suite:
    if not isinstance(source, str):
        raise InvalidInputError(f"tests must be Python source, not {type(source).__name__}")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"tests cannot be read as Python: {error}; they begin {source!r:.60}") from error
    asserts = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assert)]
    functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    if not asserts and not functions:
        raise InvalidInputError(
            f"tests hold none: write functions whose names begin with test_, or assert statements; they begin "
            f"{source!r:.60}"
        )
    rest = ast.Module([node for node in tree.body if not isinstance(node, ast.Assert)], [])
    return _Suite(ast.unparse(rest), (*asserts, *functions), (*asserts, *(f"{name}()" for name in functions)))
