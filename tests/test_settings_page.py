"""docs/settings.md lists every setting with its default and its meaning."""

from checks.settings_page import JOBS, PAGE, docstrings, page
from jobs.config import setting_names
from pipeline.config import InputConfig


def test_the_page_is_the_one_that_the_code_gives() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(), "docs/settings.md is out of date: run python -m checks.settings_page"


def test_the_page_has_every_setting_of_every_job() -> None:
    text = page()
    names = {name for job in JOBS.values() for name in setting_names(job)}
    assert {"input.path", "speculation.mixed.num_drafts", "serve.port"} <= names
    assert [name for name in sorted(names) if f"| `{name}` |" not in text] == []


def test_every_setting_says_what_it_means() -> None:
    assert docstrings(InputConfig)["prompt_column"] == "The column of the prompts."
    assert [line for line in page().splitlines() if line.startswith("| `") and line.endswith("|  |")] == []
