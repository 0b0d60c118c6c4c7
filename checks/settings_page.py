"""Writes docs/settings.md: every setting of every job, with its type, its default and its meaning.

    python -m checks.settings_page          # after a setting was added or changed

The page is made from the dataclasses and the docstrings below their fields, which `--help` shows too.
"""

import ast
import inspect
import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from jobs.build_tables import BuildTablesConfig
from jobs.offline import OfflineConfig
from jobs.record import RecordJobConfig
from jobs.replay import ReplayJobConfig
from jobs.serve import ServeJobConfig

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
JOBS = {
    "jobs/offline.py": OfflineConfig,
    "jobs/serve.py": ServeJobConfig,
    "jobs/record.py": RecordJobConfig,
    "jobs/replay.py": ReplayJobConfig,
    "jobs/build_tables.py": BuildTablesConfig,
}
HEAD = """# Settings

Every setting is a flag (`--section.key value`) and a key of a YAML file (`--config FILE`); later ones win.
`python -m checks.settings_page` writes this page from the code.
"""


def page() -> str:
    """The page's text: one table per section, with the jobs that have the section."""
    sections: dict[str, tuple[Any, list[str]]] = {}
    for job, config_class in JOBS.items():
        for name, class_ in get_type_hints(config_class).items():
            if is_dataclass(class_):
                sections.setdefault(name, (class_, []))[1].append(f"`{job}`")
    parts = [HEAD]
    for name, (class_, jobs) in sections.items():
        rows = "\n".join(lines(class_, f"{name}."))
        table = f"| setting | type | default | meaning |\n|---|---|---|---|\n{rows}"
        parts.append(f"## {name}\n\n{inspect.getdoc(class_)} Settings of {', '.join(jobs)}.\n\n{table}\n")
    return "\n".join(parts)


def lines(class_: Any, prefix: str) -> Iterator[str]:
    """One table line per setting, those of nested sections too."""
    hints = get_type_hints(class_)
    told = docstrings(class_)
    for field in fields(class_):
        if is_dataclass(hints[field.name]):
            yield from lines(hints[field.name], f"{prefix}{field.name}.")
        else:
            plain = type(field.type) is type  # a class, not a generic such as list[str] or a union
            type_ = getattr(field.type, "__name__", "") if plain else str(field.type)
            type_ = type_.replace("|", "or")
            cells = [f"`{prefix}{field.name}`", type_, default(field), told.get(field.name, "")]
            yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def default(field: Field[Any]) -> str:
    """The default as JSON spells it."""
    if field.default is not MISSING:
        return f"`{json.dumps(field.default)}`"
    if field.default_factory is not MISSING:
        return f"`{json.dumps(field.default_factory())}`"
    return "must be given"


def docstrings(class_: Any) -> dict[str, str]:
    """The docstring below each field of a dataclass, on one line."""
    body = ast.parse(inspect.cleandoc(inspect.getsource(class_))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(field.target, ast.Name) and isinstance(after.value, ast.Constant)
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
