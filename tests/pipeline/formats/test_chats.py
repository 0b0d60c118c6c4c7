"""Chats in files: contents of texts and parts, calls of tools, and tools, in every format."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import prepare
from rows.text_codec import TextCodec
from tests.pipeline.reading import prepared, told
from tests.serving.fakes import ByteCodec

PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
TEMPLATE = (
    "{% if tools %}{{ tools[0].function.name }}:{% endif %}{% for m in messages %}<{{ m.role }}>"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.arguments.x }}{% endfor %}"
    "{% endfor %}"
)
TOOLS = [{"type": "function", "function": {"name": "add"}}]


@pytest.fixture(autouse=True)
def codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer with a real template, whose tokens are bytes."""

    def load(model: Any) -> TextCodec:
        return ByteCodec(TEMPLATE)

    monkeypatch.setattr(prepare, "load_codec", load)


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_content_may_be_a_text_in_one_message_and_parts_in_the_next(tmp_path: Path) -> None:
    mixed = [{"role": "system", "content": "s"}, {"role": "user", "content": PARTS}]
    plain = [{"role": "user", "content": "x"}]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]
    path = write_lines(tmp_path / "a.jsonl", *({"chat": chat} for chat in (mixed, plain, image)))
    rows = prepared(path, messages_column="chat")
    assert told(rows) == [
        "<system>s<user>ab",
        "<user>x",
        "column 'chat': messages[0].content[0] is of type 'image_url'; only parts of type text, with a text, "
        "are supported",
    ]
    # No Arrow type holds all three, so the column is carried as JSON; nothing of it is lost.
    assert [json.loads(row["carried"]["chat"]) for row in rows] == [mixed, plain, image]


def test_chats_of_one_shape_are_carried_as_they_are(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": PARTS}]
    [row] = prepared(write_lines(tmp_path / "a.jsonl", {"chat": chat}), messages_column="chat")
    assert (told([row]), row["carried"]["chat"]) == (["<user>ab"], chat)


def test_calls_and_tools_reach_the_template_from_json_lines_and_csv(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"x": 5}'}}
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "6"},
    ]
    lines = write_lines(tmp_path / "a.jsonl", {"chat": chat, "tools": TOOLS}, {"chat": chat, "tools": None})
    wanted = "<user>hi<assistant>5<tool>6"
    assert told(prepared(lines, messages_column="chat")) == [f"add:{wanted}", wanted]
    cells = [json.dumps(value).replace('"', '""') for value in (chat, TOOLS)]
    (tmp_path / "b.csv").write_text(f'chat,functions\n"{cells[0]}","{cells[1]}"\n')
    rows = prepared(tmp_path / "b.csv", messages_column="chat", tools_column="functions")
    assert told(rows) == [f"add:{wanted}"]


def test_structs_of_parquet_are_chats_without_their_null_fields(tmp_path: Path) -> None:
    arguments = {"x": 5}
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": arguments}}]},
    ]
    table = pa.Table.from_pylist([{"chat": chat, "tools": json.dumps(TOOLS)}])
    pq.write_table(table, tmp_path / "a.parquet")
    assert told(prepared(tmp_path / "a.parquet", messages_column="chat")) == ["add:<user>hi<assistant>5"]


def test_null_fields_that_parquet_fills_in_are_absent_from_arguments_and_tools(tmp_path: Path) -> None:
    """Parquet cannot tell a field that is null from one that a value lacks; JSON can."""
    call = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1, "y": None}}}],
    }
    functions = [{"function": {"name": "f", "p": {"a": 1, "b": None}}}]
    template = "{{ tools[0].function.p | tojson }}{{ messages[0].tool_calls[0].function.arguments | tojson }}"
    rows = {"chat": [call], "tools": functions}
    other = {"chat": [call], "tools": [{"function": {"name": "f", "p": {"b": 1}}}]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "load_codec", lambda model: ByteCodec(template))
        pq.write_table(pa.Table.from_pylist([rows, other]), tmp_path / "a.parquet")
        assert told(prepared(tmp_path / "a.parquet", messages_column="chat")) == ['{"a": 1}{"x": 1}'] + [
            '{"b": 1}{"x": 1}'
        ]
        lines = write_lines(tmp_path / "b.jsonl", rows)
        assert told(prepared(lines, messages_column="chat")) == ['{"a": 1, "b": null}{"x": 1, "y": null}']


def test_maps_of_parquet_are_objects(tmp_path: Path) -> None:
    arguments = pa.map_(pa.string(), pa.int64())
    function = pa.struct([("name", pa.string()), ("arguments", arguments)])
    fields = [("role", pa.string()), ("tool_calls", pa.list_(pa.struct([("function", function)])))]
    chat = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [("x", 5)]}}]}]
    table = pa.table({"chat": pa.array([chat], pa.list_(pa.struct(fields)))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert told(prepared(tmp_path / "a.parquet", messages_column="chat")) == ["<assistant>5"]


def test_the_tools_of_a_batch_request_reach_the_template(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}
    request = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    rows = prepared(write_lines(tmp_path / "a.jsonl", request), format="openai_batch")
    assert told(rows) == ["add:<user>hi"]
    assert json.loads(rows[0]["carried"]["tools"]) == TOOLS


def test_tools_of_a_batch_request_that_are_no_list_are_an_error_of_its_row(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": {}}
    request = {"custom_id": "1", "url": "/v1/chat/completions", "body": body}
    rows = prepared(write_lines(tmp_path / "a.jsonl", request), format="openai_batch")
    assert told(rows) == ["column 'messages': tools is {}; it must be a list of functions as JSON schemas"]


def test_parts_of_a_batch_request_reach_a_template_that_takes_parts_and_are_carried_as_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the endpoint and the batch job make the same prompt of the same body."""
    template = "{% for m in messages %}{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endfor %}"
    monkeypatch.setattr(prepare, "load_codec", lambda model: ByteCodec(template))
    body = {"model": "m", "messages": [{"role": "user", "content": PARTS}]}
    request = {"custom_id": "1", "url": "/v1/chat/completions", "body": body}
    [row] = prepared(write_lines(tmp_path / "a.jsonl", request), format="openai_batch")
    assert told([row]) == ["[a][b]"]
    assert [message["content"] for message in row["carried"]["messages"]] == ["ab"]


def test_an_answer_in_a_batch_request_may_have_the_fields_that_openai_fills_in(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "x", "refusal": None, "annotations": [], "audio": None}
    body = {"model": "m", "messages": [answer]}
    request = {"custom_id": "1", "url": "/v1/chat/completions", "body": body}
    rows = prepared(write_lines(tmp_path / "a.jsonl", request), format="openai_batch")
    assert told(rows) == ["<assistant>x"]


def test_half_a_character_in_a_chat_or_a_batch_request_is_an_error_of_its_row(tmp_path: Path) -> None:
    half = [{"role": "user", "content": "\ud800"}]
    [row] = prepared(
        write_lines(tmp_path / "a.jsonl", {"chat": half, "p": "p"}), ["p"], messages_column="chat"
    )
    assert "not valid Unicode" in row["error"]
    url = "/v1/chat/completions"
    bodies = [{"messages": half}, {"messages": [{**half[0], "\ud800": 1}]}, {"messages": half, "\ud800": 1}]
    requests = [{"custom_id": str(index), "url": url, "body": body} for index, body in enumerate(bodies)]
    rows = prepared(write_lines(tmp_path / "b.jsonl", *requests), format="openai_batch")
    assert ["\\ud800" in row["error"] or "not valid Unicode" in row["error"] for row in rows] == [True] * 3


def test_half_a_character_in_a_group_stops_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p", "kind": "\ud800"})
    [row] = prepared(path, ["prompt"], group_column="kind")
    assert (row["error"], row["group"]) == (None, "\\ud800")


def test_tools_in_a_text_may_not_be_nested_without_end_either(tmp_path: Path) -> None:
    tools = "[" + '{"a":' * 700 + "1" + "}" * 700 + "]"
    path = write_lines(tmp_path / "a.jsonl", {"chat": [{"role": "user", "content": "x"}], "tools": tools})
    [row] = prepared(path, messages_column="chat")
    assert row["error"].startswith("column 'chat': ")


def test_a_tools_column_without_chats_means_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p", "tools": "hammer"})
    assert told(prepared(path)) == ["p"]


def test_a_stop_may_be_a_single_text_in_a_rows_settings(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p", "sampling": {"stop": "\n"}})
    [row] = prepared(path)
    assert (json.loads(row["sampling"]), row["error"]) == ({"stop": ["\n"]}, None)
    assert row["carried"]["sampling"]["stop"] == ["\n"]


def test_json_files_may_differ_in_what_their_chats_and_tools_hold(tmp_path: Path) -> None:
    """Types are learned from each file; where they differ, all files carry the column as JSON."""
    plain = [{"role": "user", "content": "x"}]
    parts = [{"role": "user", "content": PARTS}]
    strict = [{"type": "function", "function": {"name": "sub", "strict": True}}]
    loose = [{"type": "function", "function": {"name": "mul", "strict": "no"}}]
    write_lines(tmp_path / "a.jsonl", {"chat": plain, "tools": strict})
    write_lines(tmp_path / "b.jsonl", {"chat": parts, "tools": loose})
    write_lines(tmp_path / "c.jsonl", {"chat": plain}, {"chat": parts})
    rows = prepared(tmp_path, messages_column="chat")
    assert told(rows) == ["sub:<user>x", "mul:<user>ab", "<user>x", "<user>ab"]
    assert [json.loads(row["carried"]["chat"]) for row in rows] == [plain, parts, plain, parts]
    assert [json.loads(row["carried"]["tools"]) for row in rows[:2]] == [strict, loose]


def test_chats_of_parquet_files_that_differ_are_refused(tmp_path: Path) -> None:
    """Parquet says its types itself, and no row of it is written as JSON."""
    pq.write_table(pa.table({"chat": [[{"role": "user", "content": "x"}]]}), tmp_path / "a.parquet")
    write_lines(tmp_path / "b.jsonl", {"chat": [{"role": "user", "content": PARTS}]})
    with pytest.raises(ValueError, match=r"column 'chat' is list<.* in .*a.parquet and list<.* in .*b.jsonl"):
        prepared(tmp_path, messages_column="chat")
