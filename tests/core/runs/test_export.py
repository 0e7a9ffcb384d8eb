"""What a run made, as files: each read back with the tools that they are for."""

from __future__ import annotations

import csv
import json

import datasets
import pytest
from openai.types.chat import ChatCompletion
from pyarrow import parquet

from tpo_core import Candidate, GenerationError, InvalidInputError, Step, StoreError, Trajectory, Usage
from tpo_core.runs import Item, RunReader, RunStore, Source, export
from tpo_core.values import Failure

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do bees sleep?"}]
WINNER, ODD = 'Deeply, "upside down",\nin the dark; é \u2028 =1+1', "\ud83d odd"


def trajectory(query, *responses, **kwargs):
    candidates = tuple(
        Candidate(text, reward=reward, step=i // 2, index=i, fresh=i < 2, feedback="short" if i == 0 else None)
        for i, (text, reward) in enumerate(responses)
    )
    return Trajectory(query, candidates, **kwargs)


@pytest.fixture
def run(tmp_path):
    """Return the reader of a run: two done, one without contrast, one failed, one open."""
    with RunStore.open(tmp_path / "out") as store:
        for item in [
            Item("a", "How do bees sleep?", {"prompt": "How do bees sleep?", "n": float("nan")}, 1),
            Item("b", TURNS, {"messages": TURNS}, 2),
            Item("c", "same", {}, 3),
            Item("d", "nothing", {}, 4),
            Item("e", "open", {}, 5),
        ]:
            store.admit(item)
        failed = Candidate("", failure=Failure("length", "cut"), index=3, step=1)
        first = trajectory(
            "How do bees sleep?", ("Well.", 1.0), (ODD, 0.5), (WINNER, 3.0),
            usage=Usage(7, 3, 100, 20), steps=(Step(1),), stop_reason="depth",
        )  # fmt: skip
        store.finish(0, Trajectory(**{**vars(first), "candidates": (*first.candidates, failed)})).wait()
        store.finish(1, trajectory(TURNS, ("Yes.", 2.0), ("No.", 1.0), stop_reason="stop_at")).wait()
        store.finish(2, trajectory("same", ("x", 1.0), ("y", 1.0), stop_reason="no_contrast")).wait()
        store.fail(3, GenerationError("nothing came")).wait()
    with RunReader(tmp_path / "out") as run:
        yield run


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_as_json_lines(run, tmp_path):
    path = tmp_path / "answers.jsonl"
    assert export(run, path) == 3
    first, second, third = rows(path)
    assert first == {
        "id": "a", "prompt": "How do bees sleep?", "response": WINNER, "reward": 3.0, "first_reward": 1.0, "gain": 2.0,
        "stop_reason": "depth", "tokens": 120, "steps": 1,
    }  # fmt: skip
    assert (second["prompt"], second["response"], third["stop_reason"]) == (TURNS, "Yes.", "no_contrast")


@pytest.mark.parametrize("name", ["answers.csv", "answers.parquet"])
def test_answers_as_a_table(run, tmp_path, name):
    export(run, tmp_path / name)
    if name.endswith("csv"):
        with (tmp_path / name).open(newline="") as file:
            first, second, _ = csv.DictReader(file)
        assert first["reward"] == "3.0"
    else:
        first, second, _ = parquet.read_table(tmp_path / name).to_pylist()
        assert first["reward"] == 3.0 and first["tokens"] == 120
    assert first["response"] == WINNER and json.loads(second["prompt"]) == TURNS


def test_answers_with_the_rows_that_they_came_from(run, tmp_path):
    for name in ("answers.jsonl", "answers.csv", "answers.parquet"):
        export(run, tmp_path / name, with_rows=True)
    assert rows(tmp_path / "answers.jsonl")[0]["row"] == {"prompt": "How do bees sleep?", "n": None}
    [_, row, _] = parquet.read_table(tmp_path / "answers.parquet")["row"].to_pylist()
    assert json.loads(row) == {"messages": TURNS}


def test_texts_candidates_and_failures(run, tmp_path):
    assert export(run, tmp_path / "texts.jsonl", "texts") == 3
    assert rows(tmp_path / "texts.jsonl")[0] == {"id": "a", "response": WINNER}
    assert export(run, tmp_path / "all.jsonl", "candidates") == 8
    well, odd, best, cut, *_ = rows(tmp_path / "all.jsonl")
    assert well == {
        "id": "a", "index": 0, "step": 0, "fresh": True, "response": "Well.", "reward": 1.0, "best": False,
        "failure": None, "feedback": "short",
    }  # fmt: skip
    assert odd["response"] == "\ufffd odd" and best["best"] and (cut["failure"], cut["reward"]) == ("length", None)
    assert export(run, tmp_path / "failures.csv", "failures") == 1
    assert (tmp_path / "failures.csv").read_text().splitlines()[1] == "d,4,nothing,GenerationError,nothing came"


def test_text_that_utf8_cannot_write_does_not_spoil_a_file(run, tmp_path):
    for name in ("all.csv", "all.parquet"):
        export(run, tmp_path / name, "candidates")
    assert "\ufffd odd" in (tmp_path / "all.csv").read_text()
    assert parquet.read_table(tmp_path / "all.parquet")["response"][1].as_py() == "\ufffd odd"


# -- preferences, for TRL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_preference_pairs_are_what_trl_trains_on(run, tmp_path, name):
    data_utils = pytest.importorskip("trl.data_utils")
    assert export(run, tmp_path / name, "preferences") == 2  # the third has no contrast
    kind = "json" if name.endswith("jsonl") else "parquet"
    data = datasets.load_dataset(
        kind, data_files=str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert {"prompt", "chosen", "rejected"} <= set(data.column_names)
    first, second = data
    assert data_utils.is_conversational(first) and data_utils.is_conversational(second)
    assert first["prompt"] == [{"role": "user", "content": "How do bees sleep?"}]
    assert first["chosen"] == [{"role": "assistant", "content": WINNER}]
    assert first["score_chosen"] == 3.0 and first["score_rejected"] == 0.5
    assert second["prompt"] == TURNS and second["rejected"][0]["content"] == "No."
    assert data_utils.maybe_extract_prompt(first) == first


def test_preference_pairs_as_plain_text(tmp_path):
    data_utils = pytest.importorskip("trl.data_utils")
    with RunStore.open(tmp_path / "out") as store:
        store.admit(Item("a", "Say hi."))
        store.finish(0, trajectory("Say hi.", ("hi", 1.0), ("no", 0.0))).wait()
        export(store, tmp_path / "pairs.jsonl", "preferences", plain=True)
    [row] = rows(tmp_path / "pairs.jsonl")
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Say hi.", "hi", "no")
    assert not data_utils.is_conversational(row)


def test_chat_messages_are_never_flattened_to_plain_text(run, tmp_path):
    with pytest.raises(InvalidInputError, match="the prompt of 'b' is chat messages"):
        export(run, tmp_path / "pairs.jsonl", "preferences", plain=True)
    assert not list(tmp_path.glob("*.jsonl")) and not list(tmp_path.glob("*.part"))


def test_the_dpo_trainer_takes_the_pairs(run, tmp_path):
    """TRL's own preparation of a data set, on the exported file, with a tokenizer that is made here."""
    dpo = pytest.importorskip("trl.trainer.dpo_trainer")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} <eos>{% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}"
    )
    export(run, tmp_path / "pairs.parquet", "preferences")
    data = datasets.Dataset.from_parquet(str(tmp_path / "pairs.parquet"), cache_dir=str(tmp_path / "cache"))
    trainer = object.__new__(dpo.DPOTrainer)
    trainer._tokenizer, trainer._is_vlm = tokenizer, False
    ready = trainer._prepare_dataset(
        data, tokenizer, dpo.DPOConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True), "train"
    )
    assert len(ready) == 2 and ready[0]["prompt_ids"] and ready[0]["chosen_ids"] and ready[0]["rejected_ids"]


# -- an OpenAI batch ---------------------------------------------------------------------------------------------------


def test_an_openai_batch_is_answered_line_by_line(tmp_path):
    body = {"model": "small", "messages": TURNS}
    asked = [{"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body} for id in ("r1", "r2")]
    (tmp_path / "batch.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    with RunStore.open(tmp_path / "out") as store:
        for item in Source(tmp_path / "batch.jsonl"):
            store.admit(item)
        store.finish(0, trajectory(TURNS, ("Yes.", 1.0), usage=Usage(5, 1, 30, 7))).wait()
        store.fail(1, GenerationError("nothing came")).wait()
        assert export(store, tmp_path / "answers.jsonl", "openai") == 2
    answered, failed = rows(tmp_path / "answers.jsonl")
    completion = ChatCompletion.model_validate(answered["response"]["body"], strict=True)
    assert completion.choices[0].message.content == "Yes." and completion.model == "small"
    assert completion.usage.total_tokens == 37
    assert (answered["custom_id"], answered["response"]["status_code"], answered["error"]) == ("r1", 200, None)
    assert (failed["custom_id"], failed["response"]) == ("r2", None)
    assert failed["error"] == {"code": "GenerationError", "message": "nothing came"}
    with pytest.raises(InvalidInputError, match=r"name it \.jsonl"), RunReader(tmp_path / "out") as run:
        export(run, tmp_path / "answers.csv", "openai")


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(run, tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    path.write_text("the one before")
    monkeypatch.setattr("tpo_core.runs.reader.unpack", lambda data: (_ for _ in ()).throw(ValueError("damaged")))
    with pytest.raises(StoreError, match="damaged"):
        export(run, path)
    assert path.read_text() == "the one before" and not list(tmp_path.glob("*.part"))


def test_a_file_that_cannot_be_written_is_one_line(run, tmp_path):
    for path in (tmp_path / "none" / "answers.jsonl", tmp_path / "folder.csv"):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        with pytest.raises(InvalidInputError, match=r"cannot be written|is a folder") as error:
            export(run, path)
        assert "\n" not in str(error.value)


def test_other_names_and_kinds_are_refused(run, tmp_path):
    with pytest.raises(InvalidInputError, match=r"name it \.jsonl, \.csv, \.parquet"):
        export(run, tmp_path / "answers.xlsx")
    with pytest.raises(InvalidInputError, match="kind must be one of answers, texts"):
        export(run, tmp_path / "answers.csv", "everything")


def test_a_run_without_answers_is_an_empty_table(tmp_path):
    with RunStore.open(tmp_path / "out") as store:
        for name in ("a.jsonl", "a.csv", "a.parquet"):
            assert export(store, tmp_path / name) == 0
    assert parquet.read_table(tmp_path / "a.parquet").column_names[0] == "id"
    assert (tmp_path / "a.csv").read_text().startswith("id,prompt,response")


def test_messages_with_pictures_are_kept_in_json_lines_and_refused_in_parquet(tmp_path):
    turns = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url"}]}]
    with RunStore.open(tmp_path / "out") as store:
        store.admit(Item("a", turns))
        store.finish(0, trajectory(turns, ("a bee", 1.0), ("a fly", 0.0))).wait()
        export(store, tmp_path / "pairs.jsonl", "preferences")
        assert rows(tmp_path / "pairs.jsonl")[0]["prompt"] == turns
        with pytest.raises(InvalidInputError, match=r"write \.jsonl"):
            export(store, tmp_path / "pairs.parquet", "preferences")
