"""URIs: pyarrow's file systems, those of fsspec, the hub; what is missing or out of reach is told in one
line.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from pipeline.files import list_files
from rows.output_folder import OutputFolder
from rows.storage import locate
from tests.pipeline import hub
from tests.pipeline.reading import prepared, told
from tests.time_limits import PROCESS_S

ROOT = Path(__file__).parent.parent.parent


def test_any_file_system_of_fsspec_is_read() -> None:
    with fsspec.open("memory://inputs/deep/a.csv", "wb") as file:
        file.write(b"prompt\nfrom memory\n")
    with fsspec.open("memory://inputs/b.txt.gz", "wb", compression="gzip") as file:
        file.write(b"packed\n")
    assert told(prepared("memory://inputs")) == ["packed", "from memory"]
    assert [file.path for file in list_files(["memory://inputs/**/*.csv"])] == ["memory://inputs/deep/a.csv"]
    OutputFolder("memory://outputs").write("part.parquet.gz", b"as it is")
    assert OutputFolder("memory://outputs").read("part.parquet.gz") == b"as it is"


def test_a_file_is_read_over_http() -> None:
    with hub.serve() as server:
        uri = f"{server}/datasets/owner/name/resolve/main/data/a.jsonl"
        assert told(prepared(uri)) == ["from the hub", "two"]
        with pytest.raises(ValueError, match=r"nope.jsonl' does not exist"):
            list_files([f"{server}/nope.jsonl"])


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        (
            "sftp://host/a.jsonl",
            r"'sftp://host/a.jsonl' cannot be opened: SFTPFileSystem requires \"paramiko\" to be installed; "
            r"give a path",
        ),
        (
            "az://container/a.jsonl",
            r"cannot be opened: Install adlfs to access Azure Datalake Gen2 and Azure Blob Storage; give a "
            r"path",
        ),
        (
            "zzz://host/a.jsonl",
            r"cannot be opened: Protocol not known: zzz; give a path or a URI such as s3://bucket/prompts",
        ),
        ("s3://bucket/a?endpont=x", r"cannot be opened: Unexpected query parameter in S3 URI: 'endpont'"),
    ],
)
def test_a_uri_that_cannot_be_opened_says_what_is_missing(uri: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        locate(uri)


def test_the_hub_offline_is_told_in_one_line() -> None:
    with pytest.raises(
        ValueError,
        match=r"input.path 'hf://datasets/owner/name' cannot be read: Cannot reach .*: offline mode is "
        r"enabled",
    ):
        list_files(["hf://datasets/owner/name"])


def test_s3_folders_globs_and_files_keep_the_query_of_their_uri(s3: Callable[[str], str]) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.txt", "_run/x.jsonl"):
        OutputFolder(s3("uris")).write(name, b'{"prompt": "x"}\n')
    assert [file.name for file in list_files([s3("uris")])] == ["a.jsonl", "b.jsonl", "deep/c.txt"]
    assert [file.path for file in list_files([s3("uris/*.jsonl")])] == [
        s3("uris/a.jsonl"),
        s3("uris/b.jsonl"),
    ]
    assert told(prepared(s3("uris/deep/c.txt"))) == ['{"prompt": "x"}']
    for missing in ("uris/nope.jsonl", "nope"):
        with pytest.raises(ValueError, match=f"input.path 's3://bucket/{missing}.*' does not exist"):
            list_files([s3(missing)])


READ_ALL = """
import sys
from pipeline import prepare
from tests.actors.fakes import load_byte_codec
from tests.pipeline.reading import prepared, told
prepare.load_codec = load_byte_codec
for uri in sys.argv[1:]:
    print(told(prepared(uri)))
"""


@pytest.mark.slow
def test_data_sets_of_the_hub_are_read_by_file_folder_and_glob() -> None:
    uris = [
        "hf://datasets/owner/name",
        "hf://datasets/owner/name/data/a.jsonl",
        "hf://datasets/owner/name/**/*.txt",
    ]
    with hub.serve() as server:
        environment = {**os.environ, "HF_ENDPOINT": server, "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", READ_ALL, *uris],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROCESS_S,
        )
    assert done.stdout.splitlines() == [
        "['from the hub', 'two', 'three']",
        "['from the hub', 'two']",
        "['three']",
    ], done.stderr


@pytest.mark.slow
def test_an_s3_that_does_not_answer_is_an_error_within_seconds() -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"cannot be read: .*AWS Error NETWORK_CONNECTION"):
        list_files(["s3://bucket/in?endpoint_override=127.0.0.1:1&scheme=http"])
    assert time.monotonic() - start < 30
