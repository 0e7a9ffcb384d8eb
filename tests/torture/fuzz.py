"""Coverage-guided fuzzing of what reads a model's or a server's words: atheris looks for inputs that reach new code.

    pip install atheris
    python tests/torture/fuzz.py completions [-max_total_time=300] [CORPUS_FOLDER]

Targets: completions, verdicts, fences, answers, trajectories. atheris has no wheels for all systems, so it is no
dependency; the same properties run by seeds in ``make torture``, and by hypothesis in the tests. An input that breaks a
property ends the run and is written to ``crash-...``: give that file in place of a folder to see it again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
with atheris.instrument_imports(include=["tpo_core"]):
    from readers import SHOWN, check_fence, check_read, written
    from server_answers import check_answer

    from tpo_core.errors import InvalidInputError
    from tpo_core.prompts.reading import refuse
    from tpo_core.prompts.signatures import TextualGradient, TextualLoss, Update
    from tpo_core.rewards.judge.verdicts import expected_grade, log_odds, read_choice, read_grade
    from tpo_core.rewards.remote.servers import SERVERS
    from tpo_core.trajectory import Trajectory

SIGNATURES = (Update, TextualLoss, TextualGradient)

INFO = {"model_type": {"classifier": {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}}}


def completions(data: bytes) -> None:
    """Nothing is read that was not written."""
    drawn = atheris.FuzzedDataProvider(data)
    signature, shown = SIGNATURES[drawn.ConsumeIntInRange(0, 2)], drawn.ConsumeBool()
    text = drawn.ConsumeUnicode(sys.maxsize)
    check_read(signature, text, SHOWN if shown else None)
    refuse(text)


def verdicts(data: bytes) -> None:
    """A grade is in its range, a choice is one of the options, log-probabilities of any kind are read."""
    drawn = atheris.FuzzedDataProvider(data)
    positions = [
        {drawn.ConsumeUnicodeNoSurrogates(4): drawn.ConsumeFloat() for _ in range(drawn.ConsumeIntInRange(0, 3))}
        for _ in range(drawn.ConsumeIntInRange(0, 3))
    ]
    text = drawn.ConsumeUnicode(sys.maxsize)
    grade, choice = read_grade(text, 1, 10), read_choice(text, ("A", "B"))
    assert grade is None or 1 <= grade <= 10, f"{text!r} was read as {grade}"
    assert choice in (None, "A", "B", "tie"), f"{text!r} was read as {choice!r}"
    expected = expected_grade(positions, 1, 10)
    assert expected is None or 1 <= expected <= 10, f"{positions} was read as {expected}"
    log_odds(positions, "yes", "no")


def fences(data: bytes) -> None:
    """No text closes its own fence."""
    check_fence(atheris.FuzzedDataProvider(data).ConsumeUnicode(sys.maxsize))


def answers(data: bytes) -> None:
    """A reward server's answer is numbers, or refused."""
    server = SERVERS[data[0] % len(SERVERS)] if data else SERVERS[0]
    try:
        answer = json.loads(data[1:])
    except (ValueError, RecursionError):
        return
    if isinstance(answer, dict):
        assert isinstance(bool(server.sign(answer)), bool) and isinstance(server.unfit(answer), str)
    check_answer(server, answer, INFO)


def trajectories(data: bytes) -> None:
    """A trajectory is read, or refused in one line; what was read is written and read alike."""
    drawn = atheris.FuzzedDataProvider(data)
    text = drawn.ConsumeUnicode(sys.maxsize) if drawn.ConsumeBool() else _changed(drawn)
    try:
        found = Trajectory.from_json(text)
    except InvalidInputError as error:
        assert "\n" not in str(error), f"not one line: {error}"  # noqa: PT017
        return
    assert Trajectory.from_json(found.to_json()).to_json() == found.to_json()
    found.to_html()


def _changed(drawn: atheris.FuzzedDataProvider) -> str:
    """Return a trajectory's JSON with something else in some place."""
    whole = place = json.loads(written())
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[drawn.ConsumeIntInRange(0, len(keys) - 1)]
        if not isinstance(place[key], (dict, list)) or not place[key] or drawn.ConsumeBool():
            break
        place = place[key]
    value = drawn.ConsumeUnicode(sys.maxsize)
    try:
        place[key] = json.loads(value)
    except (ValueError, RecursionError):
        place[key] = value
    return json.dumps(whole)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (completions, verdicts, fences, answers, trajectories)
}


def main() -> None:
    """Fuzz one target; the rest of the arguments are libFuzzer's."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz.py {'|'.join(TARGETS)} [libFuzzer's options] [CORPUS_FOLDER]")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
