"""Hive folders give their rows columns."""

import json
import re
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import InputConfig
from pipeline.partitions import partition_schema, partitions_of
from pipeline.pieces import PieceReader
from pipeline.plan import make_plan
from tests.pipeline.reading import prepared, told


def test_folders_are_columns_and_file_names_are_not() -> None:
    assert partitions_of("lang=en/year=2024/a=b.parquet") == {"lang": "en", "year": "2024"}
    assert partitions_of("0/x/lang=a%2Fb%20c/=5/p.pq") == {"lang": "a/b c"}
    assert partitions_of("lang=__HIVE_DEFAULT_PARTITION__/p.pq") == {"lang": None}
    assert partitions_of("plain/p.pq") == {}
    assert partitions_of("x=5/x=5/p.pq") == {"x": "5"}


def test_values_written_as_integers_are_integers_unless_something_would_be_lost() -> None:
    folders = [{"year": "2024", "code": "007", "n": "-5"}, {"year": None, "code": "7", "n": "x"}]
    types = {"year": pa.int64(), "code": pa.string(), "n": pa.string()}
    assert partition_schema(folders) == pa.schema(types)
    assert partition_schema([{"n": str(2**63)}]) == pa.schema({"n": pa.string()})


def test_rows_carry_the_columns_of_their_folders(tmp_path: Path) -> None:
    for lang, year, text in (("en", 2023, "hello"), ("de", 2024, "hallo")):
        folder = tmp_path / f"lang={lang}" / f"year={year}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"prompt": [text, text + "!"]}), folder / "part.parquet")
    pq.write_table(pa.table({"prompt": ["nowhere"]}), tmp_path / "z.parquet")
    rows = prepared(tmp_path)
    assert [(row["carried"]["prompt"], row["carried"]["lang"], row["carried"]["year"]) for row in rows] == [
        ("hallo", "de", 2024),
        ("hallo!", "de", 2024),
        ("hello", "en", 2023),
        ("hello!", "en", 2023),
        ("nowhere", None, None),
    ]
    assert prepared(tmp_path, columns=["year"])[0]["carried"] == {"year": 2024}


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt"])
def test_text_files_get_them_too_and_a_glob_counts_from_its_first_star(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "set=a" / "lang=en"
    folder.mkdir(parents=True)
    text = {"jsonl": '{"prompt": "p"}\n', "json": '[{"prompt": "p"}]', "csv": "prompt\np\n", "txt": "p\n"}
    (folder / f"a.{suffix}").write_text(text[suffix])
    [row] = prepared(f"{tmp_path}/set=a/lang=*/a.{suffix}")
    assert (told([row]), row["carried"]) == (["p"], {"prompt": "p", "lang": "en"})


def test_a_folder_may_hold_the_group_of_its_rows(tmp_path: Path) -> None:
    (tmp_path / "topic=7").mkdir()
    (tmp_path / "topic=7" / "a.jsonl").write_text(json.dumps({"prompt": "p"}))
    assert prepared(tmp_path, group_column="topic")[0]["group"] == "7"


@pytest.mark.parametrize("inner", ["x=6", "x=__HIVE_DEFAULT_PARTITION__"])
def test_folders_that_contradict_each_other_are_refused(inner: str, tmp_path: Path) -> None:
    (tmp_path / "x=5" / inner).mkdir(parents=True)
    (tmp_path / "x=5" / inner / "a.txt").write_text("p\n")
    with pytest.raises(
        ValueError, match=f"x=5/{inner}/a.txt lies in folders with two values of 'x'; rename one"
    ):
        make_plan(InputConfig(path=str(tmp_path)), 1)


def test_another_folder_name_is_another_plan(tmp_path: Path) -> None:
    digests = set()
    for lang in ("en", "de"):
        folder = tmp_path / lang / f"lang={lang}"
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("p\n")
        digests.add(make_plan(InputConfig(path=str(tmp_path / lang)), 1).digest)
    assert len(digests) == 2


@pytest.mark.parametrize("name", ["--5", "-", "+5", "5 ", "0x5", "1_000", "²", "٣", "-0", "05"])
def test_what_only_resembles_an_integer_is_a_text(name: str, tmp_path: Path) -> None:
    (tmp_path / f"x={name}").mkdir()
    (tmp_path / f"x={name}" / "a.txt").write_text("p\n")
    assert prepared(tmp_path)[0]["carried"]["x"] == name


def test_a_column_that_no_folder_gives_a_value_stands_beside_any_type(tmp_path: Path) -> None:
    (tmp_path / "x=__HIVE_DEFAULT_PARTITION__").mkdir()
    (tmp_path / "x=__HIVE_DEFAULT_PARTITION__" / "a.txt").write_text("p\n")
    (tmp_path / "z.jsonl").write_text('{"prompt": "q", "x": "text"}\n')
    assert [row["carried"]["x"] for row in prepared(tmp_path)] == [None, "text"]


def test_folders_give_texts_where_a_file_has_texts_in_a_column_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "x=5").mkdir()
    (tmp_path / "x=5" / "a.txt").write_text("p\n")
    (tmp_path / "z.jsonl").write_text('{"prompt": "q", "x": "text"}\n')
    assert [row["carried"]["x"] for row in prepared(tmp_path)] == ["5", "text"]


OWN = {  # a column x of 5, 6 and null
    "parquet": lambda path: pq.write_table(pa.table({"prompt": ["p", "q", "r"], "x": [5, 6, None]}), path),
    "jsonl": lambda path: path.write_text(
        '{"prompt": "p", "x": 5}\n{"prompt": "q", "x": 6}\n{"prompt": "r"}\n'
    ),
    "json": lambda path: path.write_text(
        '[{"prompt": "p", "x": 5}, {"prompt": "q", "x": 6}, {"prompt": "r", "x": null}]'
    ),
}


@pytest.mark.parametrize("suffix", OWN)
@pytest.mark.parametrize("columns", [None, ["x"]], ids=["all columns", "x alone"])
@pytest.mark.parametrize("schema_rows", [1, 1000])
def test_another_value_than_the_folders_is_an_error_of_its_row(
    suffix: str, columns: list[str] | None, schema_rows: int, tmp_path: Path
) -> None:
    (tmp_path / "x=5").mkdir()
    OWN[suffix](tmp_path / "x=5" / f"a.{suffix}")
    rows = prepared(tmp_path, columns=columns, schema_rows=schema_rows)
    assert told(rows) == [
        "p",
        "column 'x' is 6, but the row's file lies in the folder x=5; rename the folder, or correct the row, "
        "or leave the column out with output.columns",
        "r",
    ]
    assert [row["carried"]["x"] for row in rows] == [5, 6, 5]


def test_a_column_that_is_not_read_may_say_something_else_than_the_folder(tmp_path: Path) -> None:
    (tmp_path / "x=5").mkdir()
    OWN["parquet"](tmp_path / "x=5" / "a.parquet")
    assert told(prepared(tmp_path, columns=["prompt"])) == ["p", "q", "r"]


@pytest.mark.parametrize(
    ("folder", "own"),
    [
        ("007", pa.array([7])),
        ("0.5", pa.array([Decimal("0.50")])),
        ("2024-01-02", pa.array([date(2024, 1, 2)])),
        ("2024-01-02", pa.array([datetime(2024, 1, 2)], pa.timestamp("us"))),
        ("2024-01-02 03:04:05Z", pa.array([datetime(2024, 1, 2, 3, 4, 5)], pa.timestamp("us", "UTC"))),
        ("true", pa.array([True])),
        ("en", pa.array(["en"], pa.large_string())),
        ("en", pa.array(["en"], pa.string_view())),
        ("en", pa.array(["en"]).dictionary_encode()),
        ("1.5", pa.array([1.5], pa.float16())),
    ],
    ids=str,
)
def test_a_folder_and_a_file_may_agree_in_any_type(folder: str, own: pa.Array, tmp_path: Path) -> None:
    (tmp_path / f"x={folder}").mkdir()
    table = pa.table({"prompt": ["p", "q"], "x": pa.concat_arrays([own, pa.nulls(1, own.type)])})
    pq.write_table(table, tmp_path / f"x={folder}" / "a.parquet")
    rows = prepared(tmp_path)
    assert told(rows) == ["p", "q"]
    assert [row["carried"]["x"] for row in rows] == [own[0].as_py()] * 2


@pytest.mark.parametrize(
    ("folder", "own"),
    [
        ("en", pa.array([5])),
        ("0.123", pa.array([Decimal("0.50")])),
        ("2024-01-02", pa.array([datetime(2024, 1, 2)], pa.timestamp("us", "UTC"))),
        ("5", pa.array([[5]], pa.list_(pa.field("element", pa.int64())))),
    ],
    ids=str,
)
def test_a_folder_whose_value_the_files_column_cannot_hold_is_refused_by_the_plan(
    folder: str, own: pa.Array, tmp_path: Path
) -> None:
    (tmp_path / f"x={folder}").mkdir()
    pq.write_table(pa.table({"prompt": ["p"], "x": own}), tmp_path / f"x={folder}" / "a.parquet")
    said = re.escape(
        f"column 'x' is {own.type} in {tmp_path}/x={folder}/a.parquet, which the folder's x={folder}"
    )
    with pytest.raises(ValueError, match=f"{said} is not; rename the folder, or leave the column out with"):
        make_plan(InputConfig(path=str(tmp_path)), 1)
    assert told(prepared(tmp_path, columns=["prompt"])) == ["p"]


def test_a_folder_that_another_files_type_cannot_hold_exactly_is_an_error_of_its_rows(tmp_path: Path) -> None:
    (tmp_path / f"x={2**53 + 1}").mkdir()
    (tmp_path / f"x={2**53 + 1}" / "a.txt").write_text("p\n")
    (tmp_path / "z.jsonl").write_text('{"prompt": "q", "x": 0.5}\n')
    assert told(prepared(tmp_path)) == [
        "column 'x' is double, which cannot hold the folder's x=9007199254740993; leave the column out with "
        "output.columns",
        "q",
    ]


def test_a_value_that_is_no_text_at_all_differs_too(tmp_path: Path) -> None:
    (tmp_path / "x=en").mkdir()
    texts = pa.array([b"\xff", b"en"]).view(pa.string())
    pq.write_table(pa.table({"prompt": ["p", "q"], "x": texts}), tmp_path / "x=en" / "a.parquet")
    plan = make_plan(InputConfig(path=str(tmp_path)), 1)
    rows = PieceReader(InputConfig(path="x"), plan.schema, plan.schema, True).read(plan.pieces.to_pylist()[0])
    first, second = rows.misfits
    assert first is not None
    assert first.startswith(
        "column 'x' is a text that is not UTF-8, but the row's file lies in the folder x=en"
    )
    assert second is None


def test_a_group_that_the_rows_name_too_must_be_the_folders(tmp_path: Path) -> None:
    (tmp_path / "topic=7").mkdir()
    rows = [{"prompt": "p", "topic": 7}, {"prompt": "q", "topic": 8}]
    (tmp_path / "topic=7" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told_first, told_second = told(prepared(tmp_path, columns=["prompt"], group_column="topic"))
    assert told_first == "p"
    assert told_second.startswith("column 'topic' is 8, but the row's file lies in the folder topic=7")


def test_a_run_that_is_continued_from_another_place_has_the_same_plan_and_values(tmp_path: Path) -> None:
    for lang in ("de", "en"):
        (tmp_path / "old" / f"lang={lang}").mkdir(parents=True)
        (tmp_path / "old" / f"lang={lang}" / "a.txt").write_text("p\n" * 20)
    first = make_plan(InputConfig(path=str(tmp_path / "old")), 1)
    (tmp_path / "old").rename(tmp_path / "new")
    again = make_plan(InputConfig(path=str(tmp_path / "new")), 1, first.rows_per_shard)
    assert again.digest == first.digest
    left = again.without([0, 1]).to_pylist()
    assert [(piece["shard"], piece["num_rows"], piece["partitions"]) for piece in left] == [
        (2, 16, [("lang", "en")]),
        (3, 4, [("lang", "en")]),
    ]
