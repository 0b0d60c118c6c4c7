"""The check of code limits names what is over a limit and lets pass what is not."""

from pathlib import Path

import pytest

from checks.code_limits import lines_of_code, packed_assignments, shared_names, too_long


def test_docstrings_comments_and_blank_lines_are_no_code() -> None:
    source = '"""A module.\n\nIt is short.\n"""\n\n# why\nx = 1  # one\ny = """two\nlines"""\n'
    assert lines_of_code(source) == {7, 8, 9}


def test_a_function_of_40_lines_of_code_passes_and_one_of_41_is_named(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    fits = 'def fits():\n    """Fits.\n\n    So it does.\n    """\n' + "    pass\n" * 39
    file.write_text(fits + "def long():\n" + "    pass\n" * 40)
    named = "long has 41 lines of code; the limit for a function is 40"
    assert list(too_long(file)) == [f"{file}:45: {named}"]


def test_a_file_of_300_lines_of_code_passes_and_one_of_301_is_named(tmp_path: Path) -> None:
    fits = tmp_path / "fits.py"
    over = tmp_path / "over.py"
    fits.write_text("x = 1\n\n# why\n" * 300)
    over.write_text("x = 1\n" * 301)
    assert list(too_long(fits)) == []
    assert list(too_long(over)) == [f"{over}: 301 lines of code; the limit for a file is 300"]


@pytest.mark.parametrize(
    "line",
    ["a, b = 1, 2", "a.x, b = c, d", "a, b = f(), 2", "a, b = a, 2", "[a, b] = [1, 2]", "a, b, c = b, a, 1"],
)
def test_two_assignments_on_one_line_are_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(line + "\n")
    assert list(packed_assignments(file)) == [
        f"{file}:1: several assignments on one line; write one per line"
    ]


@pytest.mark.parametrize(
    "line", ["a, b = b, a", "a, b = f()", "a, b = pair", "a[0], a[1] = a[1], a[0]", "a = 1, 2"]
)
def test_swaps_and_unpacked_values_pass(tmp_path: Path, line: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(line + "\n")
    assert list(packed_assignments(file)) == []


def test_files_of_one_name_are_named_unless_they_hold_settings() -> None:
    files = [Path("a/config.py"), Path("b/config.py"), Path("a/plan.py"), Path("b/plan.py")]
    assert list(shared_names(files)) == ["plan.py: a/plan.py, b/plan.py share a name; rename all but one"]
