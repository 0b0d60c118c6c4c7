"""Which files a path, folder, glob or URI names."""

from pathlib import Path

import pytest

from pipeline.files import InputFile, list_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl", "deep/c.parquet", "README.md", "_run/part.parquet", ".hidden.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    return tmp_path


def names(*paths: object, format_: str = "auto") -> list[str]:
    return [file.name for file in list_files([str(path) for path in paths], format_)]


def test_a_file_is_named_by_its_base_name(folder: Path) -> None:
    assert list_files([str(folder / "a.jsonl")]) == [
        InputFile("a.jsonl", str(folder / "a.jsonl"), "jsonl", 5)
    ]


def test_a_folder_gives_its_data_files_in_order_but_no_hidden_ones_and_no_readme(folder: Path) -> None:
    assert names(folder) == ["a.jsonl", "b.jsonl", "deep/c.parquet"]
    assert names(folder, format_="jsonl") == ["README.md", "a.jsonl", "b.jsonl", "deep/c.parquet"]


def test_globs_cross_folders_with_two_stars_only(folder: Path) -> None:
    assert names(folder / "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(folder / "[b-z].jsonl") == ["b.jsonl"]
    assert names(folder / "**" / "*.parquet") == ["deep/c.parquet"]
    assert names(folder / "d?ep" / "*") == ["deep/c.parquet"]
    assert names(folder / "**", format_="jsonl") == ["README.md", "a.jsonl", "b.jsonl", "deep/c.parquet"]


def test_a_file_uri_works_like_its_path(folder: Path) -> None:
    files = list_files([f"file://{folder}/*.jsonl"])
    assert [(file.name, file.path) for file in files] == [
        (name, f"file://{folder}/{name}") for name in ("a.jsonl", "b.jsonl")
    ]


def test_files_of_several_paths_never_share_a_name(folder: Path) -> None:
    assert names(folder / "a.jsonl", folder / "deep") == ["0/a.jsonl", "1/c.parquet"]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nope.jsonl", "input.path '{root}/nope.jsonl' does not exist"),
        ("*.xml", "input.path '{root}/*.xml' holds no files to read"),
        ("**.jsonl", "input.path '{root}/**.jsonl' is no glob: "),
        ("_run", "input.path '{root}/empty' holds no files to read"),
        (
            "README.md",
            "the format of '{root}/README.md' is not known from its name; "
            "set input.format: jsonl, json, parquet, csv, text, openai_batch",
        ),
    ],
)
def test_a_path_that_gives_nothing_to_read_is_refused(folder: Path, path: str, error: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ValueError) as caught:
        names(folder / ("empty" if path == "_run" else path))
    assert error.format(root=folder) in str(caught.value)


def test_a_file_named_twice_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"names '.*a.jsonl' more than once"):
        names(folder / "a.jsonl", folder / "*.jsonl")
