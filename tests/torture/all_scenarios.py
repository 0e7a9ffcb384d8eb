"""The scenarios by name, and what a process of a pool does with one."""

from __future__ import annotations

import logging
import signal

from by_hand import schedule
from lifetimes import endings, event_loops, forks, spawns
from readers import command_line, completions, run_file, trajectory
from reward_answers import reward_answers
from scenarios import Report, Scenario
from sockets import face
from storm import crowd, crowd_of_faces, storm

__all__ = ["SCENARIOS", "Report", "quiet", "run_part"]

SCENARIOS = {
    "schedules by hand": Scenario(schedule, 150, 100_000),
    "schedules by sockets": Scenario(face, 12, 1_000),
    "storm": Scenario(storm, 20, 1_000),
    "crowd": Scenario(crowd, 1, 50),
    "crowd of faces": Scenario(crowd_of_faces, 1, 20),
    "event loops": Scenario(event_loops, 2, 40),  # twenty each
    "forks": Scenario(forks, 2, 200),
    "spawns": Scenario(spawns, 1, 40),
    "endings": Scenario(endings, 3, 56),
    "completions": Scenario(completions, 20, 10_000),  # a hundred each
    "reward answers": Scenario(reward_answers, 100, 5_000),
    "trajectories": Scenario(trajectory, 150, 20_000),
    "run files": Scenario(run_file, 20, 5_000),
    "command lines": Scenario(command_line, 20, 3_000),
}


def run_part(part: tuple[str, int, int]) -> Report:
    """Run some seeds of a scenario: its name, how many, and the first."""
    name, count, first = part
    return SCENARIOS[name].run(count, first)


def quiet() -> None:
    """Keep a process of a pool from logging, and from taking a signal that is the command's to take."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, lambda *_: None)  # not ignored: what it starts would ignore it, too
