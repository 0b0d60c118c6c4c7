"""Hive folders give their rows columns."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import InputConfig
from pipeline.partitions import partition_schema, partitions_of
from pipeline.plan import make_plan
from tests.pipeline.reading import prepared, told


def test_folders_are_columns_and_file_names_are_not() -> None:
    assert partitions_of("lang=en/year=2024/a=b.parquet") == {"lang": "en", "year": "2024"}
    assert partitions_of("0/x/lang=a%2Fb%20c/=5/p.pq") == {"lang": "a/b c"}
    assert partitions_of("lang=__HIVE_DEFAULT_PARTITION__/p.pq") == {"lang": None}
    assert partitions_of("plain/p.pq") == {}


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


def test_a_column_that_is_in_the_file_too_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "lang=en").mkdir()
    pq.write_table(pa.table({"prompt": ["p"], "lang": ["english"]}), tmp_path / "lang=en" / "a.parquet")
    assert prepared(tmp_path)[0]["carried"]["lang"] == "english"


def test_a_folder_may_hold_the_group_of_its_rows(tmp_path: Path) -> None:
    (tmp_path / "topic=7").mkdir()
    (tmp_path / "topic=7" / "a.jsonl").write_text(json.dumps({"prompt": "p"}))
    assert prepared(tmp_path, group_column="topic")[0]["group"] == "7"


def test_another_folder_name_is_another_plan(tmp_path: Path) -> None:
    digests = set()
    for lang in ("en", "de"):
        folder = tmp_path / lang / f"lang={lang}"
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("p\n")
        digests.add(make_plan(InputConfig(path=str(tmp_path / lang)), 1).digest)
    assert len(digests) == 2
