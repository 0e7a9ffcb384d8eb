"""Faults of the authors' code (yafuly/TPO, commit 395c3d7) and of DSPy's BestOfN and Refine: none of them is here.

Most are tested where their subject is: ``ELSEWHERE`` says where, and a test that moves or goes is missed here. What is
left has a test in this file, named after the fault.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from loopback import LoopbackServer
from tpo_core import TPOConfig, run
from tpo_core.models.openai_chat import OpenAIChat
from tpo_core.models.policy import ChatPolicy
from tpo_core.prompts.reading import read
from tpo_core.prompts.signatures import Update
from tpo_core.rewards import FunctionReward
from tpo_core.testing import ScriptedPolicy

TESTS = Path(__file__).parents[1]
LENGTH = FunctionReward(lambda prompt, response: float(len(response)))

LOOP, RUN, STORE = "core/loop/test_algorithm.py", "core/drivers/test_run.py", "core/runs/test_store.py"
BEST_OF_N = "dspy/test_best_of_n.py"
ELSEWHERE = {
    "a round whose updates are all malformed ends the run": (LOOP, "if_all_updates_fail_twice_the_loop_ends_with"),
    "what is dropped is not counted": (LOOP, "a_candidate_that_fails_costs_only_itself_and_is_counted"),
    "what was cut off is taken for an answer": (
        "core/prompts/test_reading.py",
        "an_unfinished_response_is_no_candidate",
    ),
    "a placeholder is scored": ("core/prompts/test_reading.py", "nothing_and_blanks_of_the_prompt_are_no_candidates"),
    "fewer choices than n are an error": (RUN, "a_model_that_ignores_n_is_topped_up_and_remembered"),
    "without n on the server nothing goes": (RUN, "a_model_that_rejects_n_is_asked_one_by_one"),
    "NaN is both best and worst": (LOOP, "a_reward_that_is_no_number_is_quarantined_and_counted"),
    "equal rewards are explained": (LOOP, "a_round_without_contrast_is_resampled_once_and_then_stops"),
    "nearly equal rewards are explained": (LOOP, "rewards_within_min_spread_are_no_contrast"),
    "the critic does not see the system prompt": (LOOP, "system_prompt_and_history_reach_the_critic"),
    "texts are cut silently": (LOOP, "the_prompts_show_the_full_texts_of_chosen_and_rejected"),
    "one failure ends all": (RUN, "one_sample_that_raises_costs_only_itself"),
    "what is done is lost with the chunk": ("core/cli/test_run_killed.py", "whenever_the_command_is_killed_each_query"),
    "other settings are mixed in": (STORE, "other_settings_are_refused_one_by_one_by_name"),
    "equal queries are taken for one": ("core/runs/test_replay.py", "two_queries_with_one_prompt_keep_their_own"),
    "an unreadable file is overwritten": (STORE, "damage_inside_the_file_is_one_line_with_what_to_do"),
    "special tokens in a text are edited": ("core/rewards/hf/test_traps.py", "."),
    "equal candidates are scored again": (LOOP, "identical_responses_are_scored_once"),
    "all candidates have one seed": (LOOP, "every_sample_of_a_loop_has_a_seed_of_its_own"),
    "there is no early stop": (LOOP, "patience_ends_after_rounds_without_gain"),
    "BestOfN: the failure budget shrinks from call to call": (BEST_OF_N, "10312_the_failure_budget_is_each_calls_own"),
    "BestOfN: a NaN reward returns None": (BEST_OF_N, "a_nan_reward_is_never_chosen_and_never_turns_into_none"),
    "BestOfN: acall is an AttributeError": (BEST_OF_N, "9235_it_can_be_awaited_and_so_can_its_reward"),
    "BestOfN: two LMs are a ValueError": (BEST_OF_N, "predictors_with_different_lms_work"),
    "Refine: a reward without source is an OSError": (
        BEST_OF_N,
        "a_reward_and_a_module_without_source_are_no_obstacle",
    ),
    "BestOfN: the second call replays the first": (BEST_OF_N, "8745_each_call_draws_anew_unless_it_is_to_be_replayed"),
    "BestOfN: print instead of logging": (BEST_OF_N, "threads_share_one_object_without_disturbing_each_other"),
    "BestOfN: the score is not on the result": (BEST_OF_N, "9239_the_winning_score_is_on_the_result"),
}
"""A fault: the file below ``tests``, and how the name of a test in it begins."""


@pytest.mark.parametrize("fault", ELSEWHERE)
def test_a_fault_that_is_tested_elsewhere_still_is(fault: str) -> None:
    file, name = ELSEWHERE[fault]
    assert re.search(rf"def test_{name}", (TESTS / file).read_text()), f"{file} has no test_{name} any more"


def test_with_one_sample_a_response_is_not_taken_for_a_list_of_its_characters() -> None:
    policy = ScriptedPolicy(sample=["hello"], update=["hello there"])
    trajectory = run("q", policy, LENGTH, TPOConfig(width=1, depth=2))
    assert {c.response for c in trajectory.candidates} <= {"hello", "hello there"}


@pytest.mark.parametrize("text", ["a <SEP> b<SEP>c", "x </IMPROVED_VARIABLE> y", "</improved_response> is the end tag"])
def test_separators_and_tags_in_queries_and_answers_are_text(text: str) -> None:
    policy = ScriptedPolicy(sample=[text, text + "."], update=[text + "!!"])
    trajectory = run(text, policy, LENGTH, TPOConfig(width=2, depth=1))
    assert trajectory.best.response == text + "!!"
    assert read(Update, f"before {text} after") == f"before {text} after"


def test_a_message_without_content_and_a_refusal_cost_themselves_alone(loopback: type[LoopbackServer]) -> None:
    answers = [{"content": None}, {"content": None, "refusal": "I cannot"}, "an answer"]
    server = loopback(answer=lambda request, number: answers[number % 3])
    policy = ChatPolicy(OpenAIChat("smol", api_base=server.url))
    trajectory = run("q", policy, LENGTH, TPOConfig(mode="bon", width=3))
    assert trajectory.best.response == "an answer" and len(trajectory.failures) == 2


@pytest.mark.parametrize("name", ["server-my-server-7b", "groq-vllm/gpt-4-claude", "models/gemini"])
def test_a_model_s_name_decides_no_back_end_and_is_sent_as_it_is(loopback: type[LoopbackServer], name: str) -> None:
    server = loopback()
    run("q", ChatPolicy(OpenAIChat(name, api_base=server.url)), LENGTH, TPOConfig(mode="bon", width=1))
    assert {request["model"] for request in server.requests} == {name}


def test_every_sampling_setting_reaches_the_server(loopback: type[LoopbackServer]) -> None:
    server = loopback()
    config = TPOConfig(mode="bon", width=2, temperature=0.3, top_p=0.8, max_response_tokens=77, seed=4)
    run("q", ChatPolicy(OpenAIChat("smol", api_base=server.url)), LENGTH, config)
    [asked] = server.requests
    limit = asked.get("max_tokens") or asked.get("max_completion_tokens")
    assert (asked["temperature"], asked["top_p"], limit, asked["n"]) == (0.3, 0.8, 77, 2) and "seed" in asked


def test_importing_writes_no_file_and_touches_no_logger(tmp_path: Path) -> None:
    program = "import logging, tpo_core, tpo_core.rewards, tpo_core.runs; print(logging.getLogger().handlers)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr, list(tmp_path.iterdir())) == ("[]", "", [])


def test_two_engines_in_one_process_keep_apart() -> None:
    for name in ("a", "b", "a"):
        policy = ScriptedPolicy(sample=[name], loss=[f"of {name}"], update=[name * 2])
        trajectory = run(name, policy, LENGTH, TPOConfig(mode="revision", width=1, depth=1))
        assert trajectory.best.response == name * 2 and trajectory.steps[0].loss == f"of {name}"
