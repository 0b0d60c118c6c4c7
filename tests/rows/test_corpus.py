"""The reference corpus: each kind of file as ids, which tokens are taken, and what is refused."""

import gzip
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.config import SpeculationConfig
from rows.corpus import check_corpus, read_corpus
from rows.corpus_files import PIECE_BYTES


def encode(texts: Sequence[str]) -> list[list[int]]:
    """The bytes of each text."""
    return [list(text.encode()) for text in texts]


def config(*paths: Path | str, **settings: Any) -> SpeculationConfig:
    return SpeculationConfig(corpus_path=[str(path) for path in paths], **settings)


def taken(*paths: Path | str, **settings: Any) -> list[bytes]:
    """The texts that a worker takes, after the driver has checked them."""
    checked = check_corpus(config(*paths, **settings))
    return [bytes(token_ids.tolist()) for token_ids in read_corpus(checked, encode)]


def refusal(*paths: Path | str, **settings: Any) -> str:
    """The one line with which the driver refuses a corpus."""
    with pytest.raises(ValueError) as caught:
        check_corpus(config(*paths, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path: Path, content: Any, age: float | None = None) -> Path:
    """A file of bytes, or of JSON lines; age: how many seconds ago it changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = "".join(json.dumps(row) + "\n" for row in content).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    if age is not None:
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path


def test_without_a_path_there_is_no_corpus() -> None:
    plain = SpeculationConfig()
    assert check_corpus(plain) is plain
    assert read_corpus(plain, encode) == []


def test_a_plain_text_is_one_text_with_its_line_ends(tmp_path: Path) -> None:
    assert taken(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\ntwo\n")) == [b"one\ntwo\n"]
    assert taken(write(tmp_path / "a.txt.gz", b"packed")) == [b"packed"]
    assert taken(write(tmp_path / "a.py", b"import os\n")) == [b"import os\n"], "a file that is named is text"


def test_a_long_plain_text_comes_in_pieces_that_end_with_lines(tmp_path: Path) -> None:
    text = b"".join(b"%d \xc3\xa4\n" % number for number in range(300_000))
    pieces = taken(write(tmp_path / "a.txt", text), corpus_tokens=1 << 30)
    assert b"".join(pieces) == text
    assert len(pieces) == len(text) // PIECE_BYTES + 1 and all(piece.endswith(b"\n") for piece in pieces)


def test_json_lines_hold_texts_or_ids_in_the_first_known_column(tmp_path: Path) -> None:
    rows: list[Any] = [{"text": "a"}, {"id": 5}, {"text": None}, {"text": ""}, {"output": "b", "text": "no"}]
    assert taken(write(tmp_path / "a.jsonl", rows)) == [b"a", b"b"]
    transcripts = [{"prompt": [1, 2], "output": [3, 4]}, {"prompt": "x", "output": []}]
    assert taken(write(tmp_path / "b.jsonl.gz", transcripts)) == [b"\3\4"]
    assert taken(tmp_path / "a.jsonl", corpus_column="text") == [b"a", b"no"]


def test_blank_lines_hold_no_text(tmp_path: Path) -> None:
    assert taken(write(tmp_path / "a.jsonl", b'{"text": "a"}\n\n \r\n{"text": "b"}')) == [b"a", b"b"]


def test_the_parts_of_an_earlier_run_give_their_ids_or_else_their_texts(tmp_path: Path) -> None:
    both = pa.table({"generated_text": ["ab", None], "generated_ids": pa.array([[7], None])})
    for folder, table in (("ids", both), ("texts", both.select(["generated_text"]))):
        (tmp_path / folder / "_run").mkdir(parents=True)
        pq.write_table(table, tmp_path / folder / "part-00000000.parquet")
        pq.write_table(pa.table({"x": [1]}), tmp_path / folder / "_run" / "plan.parquet")
    assert taken(tmp_path / "ids") == [b"\7"]
    assert taken(tmp_path / "texts") == [b"ab"]
    assert taken(tmp_path / "ids", corpus_column="generated_text") == [b"ab"]


def test_folders_globs_lists_and_uris_name_files_once(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.txt", b"a", age=9)
    write(tmp_path / "in" / "deep" / "b.txt", b"b", age=8)
    write(tmp_path / "in" / "README.md", b"no data", age=7)
    write(tmp_path / "in" / ".hidden.txt", b"no data", age=7)
    assert taken(tmp_path / "in") == [b"a", b"b"]
    assert taken(tmp_path / "in" / "*.txt", tmp_path / "in" / "a.txt") == [b"a"]
    assert taken(tmp_path / "in" / "*.md") == [b"no data"]
    assert taken(f"file://{tmp_path}/in/deep") == [b"b"]
    with fsspec.open("memory://corpus/a.txt", "wb") as file:
        file.write(b"from memory")
    assert taken("memory://corpus") == [b"from memory"]


def test_a_relative_path_becomes_absolute_for_workers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.txt", b"a")
    monkeypatch.chdir(tmp_path)
    checked = check_corpus(SpeculationConfig(corpus_path="a.txt"))
    assert checked.corpus_path == [str(tmp_path / "a.txt")]


def test_the_newest_files_come_last_whatever_their_names(tmp_path: Path) -> None:
    for name, age in (("a", 5), ("b", 9), ("c", 7)):
        write(tmp_path / f"{name}.txt", name.encode(), age)
    assert taken(tmp_path) == [b"b", b"c", b"a"]
    assert taken(tmp_path / "*.txt") == [b"b", b"c", b"a"]


def test_the_oldest_files_are_left_out_and_one_line_says_how_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "oldest.txt", b"123456", age=9)
    write(tmp_path / "old.jsonl", [{"text": "abc"}, {"text": "def"}, {"text": "ghi"}], age=8)
    write(tmp_path / "new.txt", b"xyz", age=7)
    with caplog.at_level(logging.WARNING):
        assert taken(tmp_path, corpus_tokens=8) == [b"abc", b"de", b"xyz"]
    assert caplog.messages == [
        f"speculation.corpus_path: left out are all of {tmp_path}/old.jsonl (48 bytes) after its first 5 "
        "tokens, and 1 older files (6 bytes); raise speculation.corpus_tokens (8)"
    ]


def test_a_corpus_that_just_fits_is_taken_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.txt", b"abc", age=9)
    write(tmp_path / "b.txt", b"", age=10)
    assert taken(tmp_path, corpus_tokens=3) == [b"abc"]
    assert caplog.messages == []
    assert taken(tmp_path, corpus_tokens=2) == [b"ab"]
    assert len(caplog.messages) == 1


def test_texts_need_a_tokenizer_and_ids_do_not(tmp_path: Path) -> None:
    ids = write(tmp_path / "ids.jsonl", [{"output": [1, 2]}])
    assert [found.tolist() for found in read_corpus(config(ids), None)] == [[1, 2]]
    with pytest.raises(ValueError, match=r"a.txt holds text; give --tokenizer DIR, or token ids"):
        read_corpus(config(write(tmp_path / "a.txt", b"a")), None)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.jsonl", b'{"text": "a"', "a.jsonl: line 1: not JSON (Expecting ',' delimiter"),
        ("a.jsonl", b'\n["a"]\n', "a.jsonl: line 2: found ['a']; a line must be a JSON object"),
        ("a.jsonl", b'{"text": 7}\n', "line 1: found 7; it must be a text or a list of token ids"),
        ("a.jsonl", b'{"text": [1, 2.5]}\n', "line 1: found 2.5 in place of a token id; ids are integers"),
        (
            "a.jsonl",
            b'{"text": [-1]}\n',
            "line 1: found -1 in place of a token id; ids are integers of at least",
        ),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: a text is not valid Unicode: surrogates not allowed"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON (maximum recursion depth"),
        ("a.jsonl", b"\xff\xfe\xff\n", "a.jsonl: line 1: not JSON ("),
        (
            "a.jsonl",
            b'{"id": 1, "answer": "a"}\n',
            "a.jsonl: there is no column 'generated_ids' or 'generated_text' or 'output' or 'text', "
            "it has 'id', 'answer'; set speculation.corpus_column",
        ),
        ("a.txt", b"caf\xe9 noir", "a.txt is not UTF-8: invalid continuation byte; it must hold text"),
        ("a.txt", b"caf\xc3", "a.txt is not UTF-8: unexpected end of data"),
        ("a.parquet", b"no Parquet at all", "a.parquet cannot be read: Parquet magic bytes not found"),
        ("a.txt", b"", "holds no text; give it at least one, or leave it out"),
        ("a.jsonl", b'{"text": null}\n', "holds no text; give it at least one, or leave it out"),
    ],
)
def test_a_damaged_or_empty_file_is_refused_by_name_before_anything_starts(
    tmp_path: Path, name: str, content: bytes, error: str
) -> None:
    told = refusal(write(tmp_path / name, content))
    assert error in told and str(tmp_path / name) in told


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"prompt": ["a"]}, "it has 'prompt'; set speculation.corpus_column"),
        ({"text": [7]}, "found 7; it must be a text or a list of token ids"),
        ({"text": [[1, None]]}, "found null in place of a token id"),
        ({"text": pa.array([None], pa.string())}, "holds no text"),
    ],
)
def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path, table: Any, error: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    told = refusal(tmp_path / "a.parquet")
    assert error in told and str(tmp_path / "a.parquet") in told


def test_an_archive_that_is_cut_off_is_refused_by_the_worker_too(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(3 * PIECE_BYTES // 2).hex().encode())
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.txt.gz cannot be read: .*; write the file again"):
        read_corpus(config(tmp_path / "a.txt.gz", corpus_tokens=1 << 30), encode)


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "README.md", b"no data")
    assert f"speculation.corpus_path '{tmp_path}/nope' does not exist" in refusal(tmp_path / "nope")
    assert "holds no files to read; known in a folder are names in .txt, .jsonl" in refusal(tmp_path / "in")
    assert "holds no files to read" in refusal(tmp_path / "*.txt")
    assert "cannot be opened: Protocol not known: zzz" in refusal("zzz://host/a.txt")
    named = write(tmp_path / "a.jsonl", [{"answer": "a"}])
    assert "there is no column 'anwser', it has 'answer'" in refusal(named, corpus_column="anwser")
