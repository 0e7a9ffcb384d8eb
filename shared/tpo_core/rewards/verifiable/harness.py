"""What runs an answer's code and its tests in a process of their own, which ``code.py`` starts; it imports no other.

It reads one JSON object from standard input, takes limits upon itself, and writes one line for each step to standard
output: the mark that it was given, the step's place (-1 for the answer's own code), and its error as JSON, null where
it passed. What the answer itself prints goes nowhere.
"""

import json
import os
import sys

LONGEST = 300
"""Characters of an error that are told."""


def main() -> None:
    """Run."""
    asked = json.load(sys.stdin)
    results = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    limit(asked["seconds"], asked["bytes"])
    space = {"__name__": "answer"}
    error = attempt(asked["code"], space) or attempt(asked["setup"], space)
    tell(results, asked["mark"], -1, error)
    for place, source in enumerate([] if error else asked["tests"]):
        tell(results, asked["mark"], place, attempt(source, space))
    os._exit(0)  # threads and exit handlers of the answer are not waited for


def limit(seconds: int, size: int) -> None:
    """Bound processor time, memory, files and processes; a user other than root may start none."""
    import resource

    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_FSIZE, 2**20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def attempt(source: str, space: dict) -> "str | None":  # type: ignore[type-arg]
    """Run a piece of code; returns what it raised."""
    try:
        exec(compile(source, "answer.py", "exec"), space)
    except BaseException as error:  # noqa: BLE001 - also SystemExit and KeyboardInterrupt
        try:
            said = str(error)
        except BaseException:  # noqa: BLE001 - the answer's own exception
            said = ""
        return (type(error).__name__ + (f": {said}" if said else ""))[:LONGEST]
    return None


def tell(results: int, mark: str, place: int, error: "str | None") -> None:
    """Write how a step ended."""
    os.write(results, f"{mark} {place} {json.dumps(error)}\n".encode())


if __name__ == "__main__":
    main()
