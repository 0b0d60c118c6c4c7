"""What the README and docs/ name exists: files, functions, classes, methods, settings and links.

docs/lab-notes.md is left out: its entries tell of the code of their day.
"""

import re
from pathlib import Path

import pytest

from checks.settings_page import JOBS
from jobs.config import setting_names

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += [f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "lab-notes.md"]
PACKAGES = ("jobs", "pipeline", "serving", "actors", "rows", "engine", "drafting")
SOURCE = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for package in (*PACKAGES, "benchmarks", "checks", "demo", "tests")
    for path in (ROOT / package).rglob("*.py")
}
SECTIONS = {name.split(".")[0] for job in JOBS.values() for name in setting_names(job)}


def spans(page: str) -> list[str]:
    """The texts in backticks, code blocks left out."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def listed() -> list[str]:
    """The paths of the listing in docs/architecture.md: an indented line is a file of the folder above it."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    paths = []
    folder = ""
    for line in re.findall(r"```text\n(.*?)```", text, re.DOTALL)[-1].splitlines():
        name = line.split()[0]
        if line.startswith(" "):
            paths.append(folder + name)
        else:
            folder = name
    return paths


def test_the_listing_has_every_file_of_the_packages_and_no_other() -> None:
    found = [path for path in SOURCE if path.split("/")[0] in PACKAGES and not path.endswith("__init__.py")]
    found += [path.relative_to(ROOT).as_posix() for path in (ROOT / "jobs" / "configs").glob("*.yaml")]
    assert sorted(listed()) == sorted(found)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists_and_holds_what_is_said_to_be_in_it(page: str) -> None:
    missing = []
    for span in spans(page):
        path, _, names = span.partition(" ")
        if not re.fullmatch(r"[\w./-]+\.py", path) or path.startswith("."):
            continue
        files = [file for file in SOURCE if file == path or file.endswith(f"/{path}")]
        words = re.findall(r"\w+", names)
        if not any(all(re.search(rf"\b{word}\b", SOURCE[file]) for word in words) for file in files):
            missing.append(span)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_method_that_is_named_is_one_of_its_class(page: str) -> None:
    missing = []
    for span in spans(page):
        named = re.fullmatch(r"([A-Z]\w+)\.(\w+)", span)
        if named:
            owner, method = named.groups()
            classes = [
                text for text in SOURCE.values() if re.search(rf"^class {owner}\b", text, re.MULTILINE)
            ]
            if classes and not any(re.search(rf"def {method}\b|\b{method}:", text) for text in classes):
                missing.append(span)
            if not classes and owner not in ("AttentionInterface",):
                missing.append(span)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_is_named_exists(page: str) -> None:
    known = {name for job in JOBS.values() for name in setting_names(job)}
    missing = []
    for span in spans(page):
        named = re.fullmatch(r"(?:--)?((\w+)\.[\w.]+)(?:[: =].*)?", span)
        is_setting = named and named[2] in SECTIONS and not re.search(r"\.(json|py|yaml|md)$", named[1])
        if named and is_setting and named[1] not in known | {f"{n.rpartition('.')[0]}" for n in known}:
            missing.append(span)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not ((ROOT / page).parent / link).is_file()] == []


def test_the_glossary_gives_every_word_one_meaning_and_an_example() -> None:
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0].strip() != "word"]
    words = [row[0].strip() for row in rows]
    assert {"row", "sequence", "packed token", "node", "price"} <= set(words)
    assert [word for word in words if words.count(word) > 1] == []
    assert [row for row in rows if len(row) != 3 or not row[2].strip()] == []
