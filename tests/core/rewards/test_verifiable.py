"""Rewards that verify: code by its tests, JSON by its schema, translations by chrF and by the way back."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tpo_core import TPOConfig, run
from tpo_core.errors import InvalidInputError, RewardError
from tpo_core.rewards import ChrFReward, CodeTestsReward, JSONSchemaReward, Reward, RewardModel, RoundTripReward
from tpo_core.testing import ScriptedPolicy

ROOT = Path(__file__).parents[3]
ADD = "assert add(1, 2) == 3\n\ndef test_of_negative_numbers():\n    assert add(-1, -1) == -2\n"


def one(reward: RewardModel, response: str, prompt: str = "Write it.") -> Reward:
    [score] = reward.score(prompt, [response])
    assert isinstance(score, Reward)
    return score


# -- code --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "share", "told"),
    [
        ("```python\ndef add(a, b):\n    return a + b\n```\nThat adds.", 1.0, None),
        ("def add(a, b):\n    return a + abs(b)", 0.5, "test_of_negative_numbers (AssertionError)"),
        ("def add(a, b):\n    return 0", 0.0, "2 of 2 tests failed: assert add(1, 2) == 3 (AssertionError)"),
        ("def sub(a, b):\n    return a - b", 0.0, "NameError: name 'add' is not defined"),
        ("It is easy to add.", 0.0, "could not be run: SyntaxError"),
        ("import sys\nsys.exit(0)", 0.0, "could not be run: SystemExit: 0"),
        ("import os\nos._exit(0)", 0.0, "could not be run: it did not end"),
        ("def add(a, b):\n    import os\n    os._exit(0)", 0.0, "or ended the program"),
        ("print('0' * 100)\ndef add(a, b):\n    print(a)\n    return a + b", 1.0, None),
    ],
)
def test_an_answer_s_code_gets_the_share_of_tests_it_passes(response: str, share: float, told: str | None) -> None:
    score = one(CodeTestsReward(ADD, seconds=30), response)
    assert score == share
    assert (score.feedback is None) if told is None else told in (score.feedback or "")


def test_a_test_that_does_not_end_costs_only_itself_and_what_comes_after() -> None:
    tests = "assert f(1) == 1\nassert f(2) == 2\nassert f(1) == 1"
    score = one(CodeTestsReward(tests, seconds=1), "def f(x):\n    while x != 1:\n        pass\n    return 1")
    assert score == pytest.approx(1 / 3) and "did not end within 1 s" in (score.feedback or "")


def test_code_that_sleeps_is_ended() -> None:
    assert one(CodeTestsReward("assert f()", seconds=0.2), "import time\ntime.sleep(1000)") == 0


def test_memory_and_files_are_bounded() -> None:
    big = "data = bytearray(2 ** 30)\ndef f():\n    return True"
    assert "MemoryError" in str(one(CodeTestsReward("assert f()", seconds=30, megabytes=256), big).feedback)
    full = "def f():\n    open('x', 'wb').write(bytes(2 ** 22))\n    return True"
    assert one(CodeTestsReward("assert f()", seconds=30), full) == 0


def test_the_environment_and_the_folder_are_not_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.txt").write_text("secret")
    tests = "import os\nassert 'sk-secret' not in str(dict(os.environ))\nassert not os.listdir('.')"
    tests += "\nassert os.getcwd() != here"
    assert one(CodeTestsReward(tests, seconds=30), f"here = {str(tmp_path)!r}") == 1


def test_results_that_an_answer_writes_itself_do_not_count() -> None:
    write = "    try: os.write(fd, b'0 null\\n1 null\\n')\n    except OSError: pass\n"
    forged = f"import os\nfor fd in range(3, 20):\n{write}os._exit(0)"
    assert one(CodeTestsReward(ADD, seconds=30), forged) == 0


def test_each_query_has_tests_of_its_own() -> None:
    reward = CodeTestsReward({"one": "assert x == 1", "two": "assert x == 2"}, seconds=30)
    assert reward.score(["one", "two"], ["x = 1", "x = 1"]) == [1.0, 0.0]
    assert one(CodeTestsReward(lambda pair: f"assert x == {pair.prompt}", seconds=30), "x = 7", "7") == 1
    with pytest.raises(RewardError, match="no tests for this query, of 5 char"):
        reward.score("three", ["x = 1"])


def test_a_sandbox_runs_it_and_one_that_is_not_there_is_named_before_anything_is_asked() -> None:
    assert one(CodeTestsReward("assert x", seconds=30, sandbox=("env", "A=1")), "import os\nx = os.environ['A']") == 1
    CodeTestsReward("assert x", seconds=30).check()
    with pytest.raises(RewardError, match="no-such-sandbox cannot be started"):
        run("?", ScriptedPolicy(), CodeTestsReward("assert x", sandbox=("no-such-sandbox",)))
    with pytest.raises(RewardError, match="cannot run a program of one line"):
        CodeTestsReward("assert x", sandbox=("false",)).check()


def test_the_page_s_sandbox_takes_the_network_away() -> None:
    sandbox = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    assert ", ".join(f'"{word}"' for word in sandbox) in (ROOT / "docs" / "special-tasks.md").read_text()
    reward = CodeTestsReward("assert refused", seconds=30, sandbox=sandbox)
    try:
        reward.check()
    except RewardError:
        pytest.skip("user namespaces are not allowed here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connects = f"import socket\nrefused = socket.socket().connect_ex({server.getsockname()!r}) != 0"
        assert one(reward, connects) == 1
        assert one(CodeTestsReward("assert refused", seconds=30), connects) == 0


@pytest.mark.parametrize(
    ("tests", "settings", "said"),
    [
        ("x = 1", {}, "tests hold none"),
        ("assert (", {}, "cannot be read as Python"),
        ({"q": "def f(): pass"}, {}, "tests hold none"),
        ("assert x", {"seconds": 0}, "seconds must be at least"),
        ("assert x", {"megabytes": 1}, "megabytes must be at least"),
        ("assert x", {"sandbox": "bwrap --"}, "a list of words"),
    ],
)
def test_what_is_wrong_with_tests_is_said_at_once(tests: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        CodeTestsReward(tests, **settings)


def test_the_loop_refines_code_by_its_failed_tests() -> None:
    policy = ScriptedPolicy(
        sample=["def add(a, b): return 3", "def add(a, b): return 0"], update=["def add(a, b): return a + b"]
    )
    trajectory = run("Write add.", policy, CodeTestsReward(ADD, seconds=30), TPOConfig(width=2, depth=1))
    assert trajectory.best.reward == 1
    [loss] = [request for request in policy.requests if request.task == "loss"]
    assert "test_of_negative_numbers" in str(loss.inputs)


# -- JSON --------------------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "required": ["name", "tags"],
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("response", "share", "told"),
    [
        ('{"name": "oak", "tags": ["tree"]}', 1.0, None),
        ('{"name": 1, "tags": []}', 1 / 2, "1 error: $.name: 1 is not of type 'string'"),
        ('{"tags": [1, 2, 3], "x": 0}', 1 / 7, "$.tags[0]: 1 is not of type 'string'"),
        ("oak", 0.0, "is not JSON"),
        ('```json\n{"name": "oak", "tags": []}\n```', 0.0, "no words or code fence around it"),
        ('{"name": "oak", "tags": NaN}', 0.0, "NaN is no JSON"),
        ("[" * 100_000, 0.0, "is not JSON"),
    ],
)
def test_json_is_graded_by_its_errors_which_are_named(response: str, share: float, told: str | None) -> None:
    score = one(JSONSchemaReward(SCHEMA), response)
    assert score == pytest.approx(share)
    assert (score.feedback is None) if told is None else told in (score.feedback or "")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_json_has_a_reward_and_1_is_for_what_fits(value: Any) -> None:
    fits = isinstance(value, dict) and set(value) == {"name", "tags"}
    score = one(JSONSchemaReward(SCHEMA), json.dumps(value))
    assert 0 < score <= 1 and (fits or score < 1)
    assert one(JSONSchemaReward({}), json.dumps(value)) == 1


def test_a_pydantic_model_is_a_schema_and_nothing_is_fetched() -> None:
    class Tree(BaseModel):
        name: str
        height: float

    assert one(JSONSchemaReward(Tree), '{"name": "oak", "height": 20}') == 1
    with pytest.raises(RewardError, match=r"nowhere\.invalid"):
        one(JSONSchemaReward({"$ref": "http://nowhere.invalid/schema.json"}), "1")


@pytest.mark.parametrize(("schema", "said"), [({"type": "nothing"}, "schema is none"), ("x", "must be a mapping")])
def test_what_is_no_schema_is_said_at_once(schema: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        JSONSchemaReward(schema)


# -- translation -------------------------------------------------------------------------------------------------------


def test_chrf_is_sacrebleu_s() -> None:
    from sacrebleu.metrics import CHRF

    reward, expected = ChrFReward({"q": ["Die Katze schläft.", "Es schläft die Katze."]}), CHRF()
    answers = ["Die Katze schläft.", "Die Katzen schlafen.", "Nein."]
    references = ["Die Katze schläft.", "Es schläft die Katze."]
    assert reward.score("q", answers) == pytest.approx([expected.sentence_score(a, references).score for a in answers])
    with pytest.raises(RewardError, match="no reference is known for this query, of 5 char"):
        reward.score("other", ["x"])


def test_the_way_back_shows_what_was_lost_and_a_copy_is_no_translation() -> None:
    back = {"Die Katze schläft.": "The cat sleeps.", "Die Katze.": "The cat."}
    reward = RoundTripReward(lambda text: back[text], source={"Translate: The cat sleeps.": "The cat sleeps."})
    whole, short, copy, broken = reward.score("Translate: The cat sleeps.", [*back, "The cat sleeps.", "?"])
    assert whole == 100 > short > copy == 0
    assert isinstance(short, Reward) and short.feedback == "translated back it says: The cat."
    assert broken != broken and "KeyError" in str(getattr(broken, "failure", ""))


@pytest.mark.parametrize(
    "reward", [CodeTestsReward("assert x"), CodeTestsReward({"q": "assert x"}), JSONSchemaReward({})]
)
def test_answers_aligned_to_what_is_verified_may_be_cached(reward: RewardModel) -> None:
    assert reward.cache_key is not None


def test_the_harness_imports_nothing_of_ours() -> None:
    from tpo_core.rewards.verifiable import harness

    source = Path(str(harness.__file__)).read_text()
    assert "tpo_core" not in source and os.name == "posix" and sys.executable
