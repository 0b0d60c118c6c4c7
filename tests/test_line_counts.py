"""The size check names what is over its limit and lets pass what is not."""

from pathlib import Path

from checks.line_counts import too_long


def test_a_function_of_40_lines_passes_and_one_of_41_is_named(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def fits():\n" + "    pass\n" * 39 + "def long():\n" + "    pass\n" * 40)
    assert list(too_long(file)) == [f"{file}:41: long has 41 lines; the limit for a function is 40"]


def test_a_file_of_300_lines_passes_and_one_of_301_is_named(tmp_path: Path) -> None:
    fits, over = tmp_path / "fits.py", tmp_path / "over.py"
    fits.write_text("x = 1\n" * 300)
    over.write_text("x = 1\n" * 301)
    assert list(too_long(fits)) == []
    assert list(too_long(over)) == [f"{over}: 301 lines; the limit for a file is 300"]
