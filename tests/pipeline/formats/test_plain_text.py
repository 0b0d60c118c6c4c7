"""Plain text: a line is a prompt, and row n is line n."""

from pathlib import Path

import pytest

from tests.pipeline.reading import prepared, told

HOSTILE = (
    b"\xef\xbb\xbffirst\r\n\n  \t\nunder\xe2\x80\xa8one line\n\xff\xfe\n\0\0\n  kept as it is  "
    b"\n\xef\xbb\xbfmark\nlast"
)


def test_every_line_of_a_hostile_file_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(HOSTILE)
    cuts = [prepared(tmp_path / "a.txt", rows_per_shard=size) for size in (1, 2, 100)]
    assert cuts[0] == cuts[1] == cuts[2]
    assert told(cuts[0]) == [
        "first",
        "the line is empty; remove it or give it a prompt",
        "the line is empty; remove it or give it a prompt",
        "under\u2028one line",
        "the line is not UTF-8: invalid start byte at its byte 0; fix the row",
        "the line is 2 NUL bytes, as a torn write leaves them; write the file again",
        "  kept as it is  ",
        "\ufeffmark",
        "last",
    ]
    assert cuts[0][3]["carried"] == {"prompt": "under\u2028one line"}


def test_the_column_is_called_as_the_settings_say_and_a_chat_cannot_come_from_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hi\n")
    assert prepared(tmp_path / "a.txt", prompt_column="question")[0]["carried"] == {"question": "hi"}
    with pytest.raises(ValueError, match="input.messages_column is 'chat', but the input has no such column"):
        prepared(tmp_path / "a.txt", messages_column="chat")
