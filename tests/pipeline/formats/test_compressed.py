"""Compressed text: the same rows as without, and an archive that is cut off or damaged is an error, never a
shorter text.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pipeline.config import InputConfig
from pipeline.pieces import PieceReader
from pipeline.plan import make_plan
from tests.pipeline.reading import prepared, told

TEXTS = {
    "jsonl": b'{"prompt": "a"}\nnot json\n{"prompt": "c"}\n',
    "csv": b'prompt\n"a\nb"\n"bad"x\nc\n',
    "txt": b"a\n\nc",
}
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("format_", TEXTS)
def test_the_rows_are_those_of_the_plain_file(tmp_path: Path, format_: str, suffix: str) -> None:
    (tmp_path / f"a.{format_}").write_bytes(TEXTS[format_])
    (tmp_path / f"b.{format_}.{suffix}").write_bytes(PACK[suffix](TEXTS[format_]))
    plain = prepared(tmp_path / f"a.{format_}", rows_per_shard=1)
    packed = prepared(tmp_path / f"b.{format_}.{suffix}", rows_per_shard=1)
    assert len(plain) == 3
    assert [{**row, "seed": 0} for row in packed] == [{**row, "seed": 0} for row in plain]
    assert packed == prepared(tmp_path / f"b.{format_}.{suffix}", rows_per_shard=2)


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_of_several_members_is_one_text(tmp_path: Path, suffix: str) -> None:
    data = PACK[suffix](b"one\ntw") + PACK[suffix](b"o\n") + PACK[suffix](b"") + PACK[suffix](b"three\n")
    (tmp_path / f"a.txt.{suffix}").write_bytes(data)
    assert told(prepared(tmp_path)) == ["one", "two", "three"]


def test_all_shards_of_a_compressed_file_are_one_unit_and_some_of_them_can_be_left_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"".join(b"row %d\n" % i for i in range(7))))
    plan = make_plan(InputConfig(path=str(tmp_path), rows_per_shard=2), 1)
    assert plan.pieces["unit"].to_pylist() == [0, 0, 0, 0]
    assert plan.pieces["first_byte"].to_pylist() == [0, 12, 24, 36]
    reader = PieceReader(InputConfig(path="x"), plan.schema, plan.schema, True)
    again = [
        reader.read(piece).carried["prompt"].to_pylist()
        for piece in [*plan.without([0, 2]).to_pylist(), plan.pieces.to_pylist()[0]]
    ]
    assert again == [["row 2", "row 3"], ["row 6"], ["row 0", "row 1"]]


BIG = b"".join(json.dumps({"prompt": f"{i * 7919 % 1000003}"}).encode() + b"\n" for i in range(60000))


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize(
    "damage",
    [
        "cut in the middle",
        "cut in the trailer",
        "cut in the second member",
        "a byte flipped",
        "garbage after",
    ],
)
def test_a_damaged_archive_is_refused_with_its_name_and_how_far_it_can_be_read(
    tmp_path: Path, suffix: str, damage: str
) -> None:
    whole = PACK[suffix](BIG)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x55
    data = {
        "cut in the middle": whole[: len(whole) // 2],
        "cut in the trailer": whole[:-2],
        "cut in the second member": whole + whole[:9],
        "a byte flipped": bytes(flipped),
        "garbage after": whole + b"garbage",
    }[damage]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(data)
    with pytest.raises(
        ValueError,
        match=rf"a.jsonl.{suffix} cannot be read to its end: .* stops after row [1-9][\d,]+ .* write the "
        rf"file again",
    ):
        make_plan(InputConfig(path=str(tmp_path)), 1)


@pytest.mark.parametrize("data", [b"", b'{"prompt": "a"}\n'])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.jsonl.gz (is empty|cannot be read to its end)"):
        make_plan(InputConfig(path=str(tmp_path)), 1)


def test_parquet_inside_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    with pytest.raises(ValueError, match="is Parquet inside gzip, which cannot be read in pieces; unpack it"):
        make_plan(InputConfig(path=str(tmp_path)), 1)
