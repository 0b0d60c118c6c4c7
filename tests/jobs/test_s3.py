"""A whole job with its input and output on S3, against a local server: parts are committed there, and a
broken run goes on.
"""

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from jobs import offline
from rows.output_folder import OutputFolder
from rows.storage import locate

pytestmark = pytest.mark.ray
CSV = b"prompt,id\n" + b"".join(b'"row\n%d",%d\n' % (i, i) for i in range(20))


def files(folder: str) -> dict[str, bytes]:
    """All objects below a URI."""
    filesystem, root = locate(folder)
    infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    return {
        i.path[len(root) + 1 :]: filesystem.open_input_file(i.path).read()
        for i in infos
        if i.type == fs.FileType.File
    }


def rows(folder: str) -> list[dict[str, Any]]:
    parts = sorted((name, data) for name, data in files(folder).items() if name.startswith("part-"))
    return [row for _, data in parts for row in pq.read_table(io.BytesIO(data)).to_pylist()]


def test_parts_are_committed_to_s3_and_what_is_missing_is_made_up(
    s3: Callable[[str], str],
    ray_session: None,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    OutputFolder(s3("in")).write("a.csv.gz", gzip.compress(CSV))
    OutputFolder(s3("in")).write("deep/b.jsonl", b'{"prompt": "json", "id": "20"}\nnot json\n')
    flags = [
        "--model",
        str(tiny_folder),
        "--model.dtype=float64",
        "--generation.max_tokens=8",
        "--generation.temperature=0.8",
    ]
    # Of the fixed strategy, for what adaptive speculation verifies depends on the load; the texts do not.
    flags += ["--input.rows_per_shard=4", "--input", s3("in"), "--output", s3("out"), "--speculate=mixed"]
    assert offline.main(flags) == 0
    whole = rows(s3("out"))
    assert [row["id"] for row in whole] == [*map(str, range(21)), None]
    assert [row["error"] for row in whole[:21]] == [None] * 21 and whole[21]["error"].startswith(
        "the line is not JSON"
    )
    assert len({row["generated_text"] for row in whole}) > 15
    assert set(files(s3("out"))) == {f"part-{i:08d}.parquet" for i in range(6)} | {
        f"_run/{name}" for name in ("run.json", "plan.parquet", "report.json")
    }  # fmt: skip

    for number in (1, 3, 5):
        filesystem, root = locate(s3("out"))
        filesystem.delete_file(f"{root}/part-{number:08d}.parquet")
    capsys.readouterr()
    assert offline.main(flags) == 0
    assert "22 rows in 6 shards, 3 of them done" in capsys.readouterr().err
    assert OutputFolder(s3("out")).list_parts() == set(range(6))
    assert rows(s3("out")) == whole
    assert offline.main([*flags, "--generation.max_tokens=9"]) == 2
    assert "belongs to a different run (generation.max_tokens: 8 -> 9)" in capsys.readouterr().err
