"""Where prompts come from, and what is said about bad ones."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from itertools import islice

import pyarrow
import pytest
from pyarrow import parquet

from tpo_core import InvalidInputError
from tpo_core.runs import Item, RunStore, Source, to_do

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do bees sleep?"}]


def lines(tmp_path, *rows, name="prompts.jsonl"):
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def batch(id="r1", method="POST", url="/v1/chat/completions", **body):
    return {"custom_id": id, "method": method, "url": url, "body": {"model": "m", "messages": TURNS, **body}}


def refused(source, **settings):
    with pytest.raises(InvalidInputError) as error:
        list(Source(source, **settings))
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what is read -----------------------------------------------------------------------------------------------------


def test_json_lines_with_text_and_messages(tmp_path):
    path = lines(tmp_path, {"prompt": "a", "topic": 1}, "", {"messages": TURNS}, {"prompt": "é\u2028b"})
    assert list(Source(path)) == [
        Item("1", "a", {"prompt": "a", "topic": 1}, 1),
        Item("3", TURNS, {"messages": TURNS}, 3),
        Item("4", "é\u2028b", {"prompt": "é\u2028b"}, 4),
    ]


def test_fields_by_name_and_ids_from_the_first_line_on(tmp_path):
    path = lines(tmp_path, {"q": "a", "id": 7, "key": "x"}, {"q": "b", "id": "eight", "key": "y"})
    assert [(item.id, item.prompt) for item in Source(path, prompt_field="q")] == [("7", "a"), ("eight", "b")]
    assert [item.id for item in Source(path, prompt_field="q", id_field="key")] == ["x", "y"]


def test_csv_with_quotes_lines_inside_fields_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,topic\n"a, ""quoted""\r\nin two lines",x\n\nb,y\n')
    assert [(i.prompt, i.line, i.row["topic"]) for i in Source(path)] == [
        ('a, "quoted"\r\nin two lines', 2, "x"),
        ("b", 5, "y"),
    ]
    (tmp_path / "prompts.tsv").write_text("id\tprompt\n1\ta,b\n")
    assert [(i.id, i.prompt) for i in Source(tmp_path / "prompts.tsv")] == [("1", "a,b")]


def test_parquet_and_its_odd_types(tmp_path):
    import datetime
    import decimal

    day = datetime.date(2026, 1, 2)
    rows = {
        "messages": [TURNS] * 600,
        "day": [day] * 600,
        "raw": [b"\xff"] * 600,
        "cost": [decimal.Decimal("1.5")] * 600,
    }
    parquet.write_table(pyarrow.table(rows), tmp_path / "prompts.parquet")
    items = list(Source(tmp_path / "prompts.parquet"))
    assert len(items) == 600 and items[599].line == 600
    assert items[0].prompt == TURNS and items[0].row == {
        "messages": TURNS,
        "day": "2026-01-02",
        "raw": "/w==",
        "cost": "1.5",
    }


def test_a_data_set_is_streamed(tmp_path):
    (tmp_path / "set").mkdir()
    lines(tmp_path / "set", *({"question": f"q{i}", "id": i} for i in range(3)), name="test.jsonl")
    items = list(Source(tmp_path / "set", prompt_field="question", split="test"))
    assert [(item.id, item.prompt, item.line) for item in items] == [("0", "q0", 1), ("1", "q1", 2), ("2", "q2", 3)]


def test_standard_input(monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b'{"prompt": "a"}\n{"prompt": "b"}')

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert [item.prompt for item in Source("-")] == ["a", "b"]


def test_openai_batch_lines(tmp_path):
    row = batch(temperature=0.2, max_completion_tokens=50, top_p=0.5, seed=3, n=1, stream=False, stop=None, user="me")
    [item] = Source(lines(tmp_path, row))
    assert (item.id, item.prompt, item.model, item.row) == ("r1", TURNS, "m", row)
    assert item.sampling == {"temperature": 0.2, "max_response_tokens": 50, "top_p": 0.5, "seed": 3}


def test_a_field_named_for_the_prompt_makes_batch_lines_ordinary(tmp_path):
    [item] = Source(lines(tmp_path, {**batch(), "text": "a"}), prompt_field="text")
    assert (item.id, item.prompt) == ("r1", "a")


def test_a_source_is_never_read_ahead(tmp_path):
    path = lines(tmp_path, {"prompt": "a"}, {"prompt": "b"}, "no json")
    assert [item.prompt for item in islice(Source(path), 2)] == ["a", "b"]


def test_the_lines_of_a_large_file_stand_in_memory_one_by_one(tmp_path):
    program = """
import resource, sys
from tpo_core.runs import Source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(1 for _ in Source(sys.argv[1])) == 40_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    path = tmp_path / "prompts.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps({"prompt": "x" * 1000, "id": i}) + "\n" for i in range(40_000))
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000, "kilobytes, of a file of 40,000"


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("no json", "line 2: it is no JSON: Expecting value"),
        ('["a"]', "line 2: it is a JSON list, not an object"),
        ("7", "line 2: it is a JSON int, not an object"),
        ("[" * 100_000, "line 2: it is no JSON"),
        ({"question": "b"}, "line 2: it has no field 'prompt' or 'messages'; its fields are 'question': name the one"),
        ({"prompt": ""}, "line 2: query is empty"),
        ({"prompt": "  \n"}, "line 2: query is empty"),
        ({"prompt": None}, "line 2: its 'prompt' is None; a prompt is text or a list of chat messages"),
        ({"prompt": 7}, "line 2: its 'prompt' is 7"),
        ({"prompt": []}, "line 2: query must be text or a non-empty list"),
        ({"prompt": ["hi"]}, "line 2: query holds 'hi'; a chat message is a dict with role and content"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "line 2: query holds no text besides the system prompt"),
        ({"prompt": "\ud83d"}, "line 2: the id or the prompt holds a lone surrogate"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong_or_counted(tmp_path, row, told):
    path = lines(tmp_path, {"prompt": "a"}, row, {"prompt": "c"})
    assert told in refused(path) and str(path) in refused(path)
    source = Source(path, skip_bad_lines=True)
    assert [item.prompt for item in source] == ["a", "c"] and source.skipped == 1


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    for name, text in (("a.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n'), ("a.csv", b"prompt\na\n\xff\n")):
        (tmp_path / name).write_bytes(text)
        told = refused(tmp_path / name)
        assert "line 2: it is no UTF-8" in told or "line 3: the id or the prompt holds a lone surrogate" in told


@pytest.mark.parametrize("id", [None, "", True, 1.5, ["a"]])
def test_a_missing_or_odd_id_is_named(tmp_path, id):
    assert "line 2: its id, 'id', is" in refused(lines(tmp_path, {"prompt": "a", "id": "1"}, {"prompt": "b", "id": id}))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prompt,prompt\na,b\n", "line 1: the header names prompt twice"),
        ("prompt,topic\na,b,c\n", "line 2: it has 3 fields, and the header has 2"),
        ("prompt,topic\na\n", "line 2: it has 1 fields"),
        ('prompt\na\n"b\n', "line 3: it is no CSV: unexpected end of data"),
        (
            "prompt\n" + "x" * 200_000 + "\n",
            "line 2: it is no CSV: field larger than field limit (131072); write longer",
        ),
        ("question\na\n", "line 2: it has no field 'prompt'"),
        ("prompt\n", "holds no prompts: it is empty"),
    ],
)
def test_bad_csv_is_named(tmp_path, text, told):
    (tmp_path / "prompts.csv").write_text(text)
    assert told in refused(tmp_path / "prompts.csv")


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, text):
    (tmp_path / "prompts.jsonl").write_text(text)
    assert refused(tmp_path / "prompts.jsonl").endswith("holds no prompts: it is empty")


def test_a_file_of_bad_lines_says_what_the_first_lacks(tmp_path):
    told = refused(lines(tmp_path, {"q": "a"}, "no json"), skip_bad_lines=True)
    assert "holds no prompts: not one of its 2 lines can be used; " in told and "line 1: it has no field" in told


def test_a_json_list_is_told_to_be_lines(tmp_path):
    (tmp_path / "prompts.jsonl").write_text(json.dumps([{"prompt": "a"}], indent=1))
    assert "write one object a line" in refused(tmp_path / "prompts.jsonl")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"custom_id": "r2", "prompt": "a"}, "it lacks custom_id or body"),
        (batch("r2", url="/v1/embeddings"), "it asks POST /v1/embeddings; only POST /v1/chat/completions is answered"),
        (batch("r2", method="GET"), "it asks GET"),
        (batch(7), "custom_id is 7"),
        (batch(""), "custom_id is ''"),
        ({"custom_id": "r2", "body": {"prompt": "a"}}, "its body has no list of messages"),
        ({"custom_id": "r2", "body": "a"}, "its body has no list of messages"),
        (batch("r2", n=4), "its body sets n, and a run's width says how many"),
        (batch("r2", stream=True), "its body sets stream"),
        (batch("r2", tools=[{"type": "function"}]), "its body sets tools"),
        (batch("r2", stop=["\n"]), "its body sets stop, and a run cannot pass it on; leave it out"),
        (batch("r2", response_format={"type": "json_object"}), "its body sets response_format"),
        (batch("r2", made_up=1), "its body sets made_up"),
        (batch("r2", temperature=-1), "temperature must be"),
        (batch("r2", max_tokens="many"), "max_response_tokens must be"),
    ],
)
def test_what_a_batch_line_asks_that_a_run_cannot_do_is_refused(tmp_path, row, told):
    path = lines(tmp_path, batch("r1"), row)
    assert told in refused(path) and ", line 2: " in refused(path)


def test_sources_that_are_not_there_or_are_something_else(tmp_path):
    assert "there is no such file" in refused(tmp_path / "prompts.jsonl")
    assert "there is no such file" in refused(tmp_path / "prompts.parquet")
    (tmp_path / "prompts.txt").write_text("a")
    assert "it is not known what this file is; name it .jsonl" in refused(tmp_path / "prompts.txt")
    assert "format must be one of" in refused(tmp_path / "prompts.txt", format="xml")
    (tmp_path / "prompts.parquet").write_text("PAR1 no parquet PAR1")
    assert "cannot be read as Parquet" in refused(tmp_path / "prompts.parquet")
    (tmp_path / "empty").mkdir()
    assert "there is no such file, and no data set" in refused(tmp_path / "empty")
    assert [item.prompt for item in Source(lines(tmp_path, {"prompt": "a"}, name="a.txt"), format="jsonl")] == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_file_that_fails_while_it_is_read_is_named(tmp_path):
    (tmp_path / "prompts.jsonl").symlink_to("/proc/self/mem")
    assert "prompts.jsonl cannot be read: " in refused(tmp_path / "prompts.jsonl")


def test_an_id_used_twice_is_named_or_counted_also_when_the_run_goes_on(tmp_path):
    path = lines(tmp_path, *({"prompt": prompt, "id": id} for prompt, id in zip("abcde", "xyxzx", strict=True)))
    with RunStore.open(tmp_path / "out") as store, pytest.raises(InvalidInputError, match=r"line 3: .*'x'.* line 1"):
        list(to_do(store, Source(path)))
    for _ in range(2):
        with RunStore.open(tmp_path / "out") as store:
            source = Source(path, skip_bad_lines=True)
            assert [query.item.prompt for query in to_do(store, source)] == ["a", "b", "d"]
            assert source.skipped == 2 and store.counts.total == 3


def test_numbers_that_json_lacks_are_kept(tmp_path):
    [item] = Source(lines(tmp_path, '{"prompt": "a", "score": NaN}'))
    with RunStore.open(tmp_path / "out") as store:
        store.fail(store.admit(item).position, ValueError()).wait()
        assert math.isnan(next(store.failed()).item.row["score"])
