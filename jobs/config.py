"""YAML files and flags into frozen dataclasses: one parser for every job.

It does not know what a setting means.

    config = parse(OfflineConfig, ["--config", "jobs/configs/demo.yaml", "--limit", "10"])

The class of a job's settings is a dataclass of sections, each a dataclass that may hold further ones;
`--section.key value` sets a key, and later values win. A field that is no section is a switch, which is off
unless its flag is given. Help texts are the docstrings below the fields.
"""

import difflib
import re
from argparse import SUPPRESS, ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import jsonargparse
import yaml

# Short names of flags. Each stands for the first of its long names that the job has.
ALIASES = {
    "input": ("input.path",),
    "output": ("output.path",),
    "model": ("model.path",),
    "speculate": ("speculation.mode",),
    "limit": ("input.limit", "replay.limit"),
    "host": ("serve.host",),
    "port": ("serve.port",),
    "dry-run": ("dry_run",),
    "transcripts": ("replay.transcripts",),
    "cost_model": ("replay.cost_model",),
    "batch_size": ("replay.batch_size",),
    "min_survival": ("replay.min_survival",),
    "json": ("replay.json",),
    "tables": ("replay.tables", "tables.folder"),
    "tokenizer": ("replay.tokenizer",),
    "out": ("record.out",),
}
# Names that settings had in earlier versions, and what to do about them.
RENAMED = {
    "speculation.num_drafts": "is now speculation.mixed.num_drafts",
    "speculation.draft_len": "is now speculation.mixed.draft_len",
    "speculation.query_len": "is now speculation.mixed.query_len",
    "speculation.sources": "is now speculation.mixed.sources",
    "pool.shards_in_flight": "was removed: a worker holds as many shards as keep it busy; leave it out",
    "num_drafts": "is now --speculation.mixed.num_drafts",
    "draft_len": "is now --speculation.mixed.draft_len",
    "query_len": "is now --speculation.mixed.query_len",
    "sources": "is now --speculation.mixed.sources",
    "max_nodes_per_sequence": "is now --speculation.max_nodes_per_sequence",
    "row_price": "is now --min_survival",
    "thinking_us": "is now --replay.drafting_us",
    "guesses": "is now --replay.candidates true",
    "out": "is now --tables.folder",
    "num_successors": "is now --tables.num_successors",
    "prefix_ids": "is now --tables.prefix_ids",
}
Config = TypeVar("Config")
jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: `mode: off` is the word off, and 1e-3 is a number."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in resolvers if pair[0].rsplit(":", 1)[1] not in ("bool", "float", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))
_FLOAT = re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|^[-+]?\.inf$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


jsonargparse.set_loader("yaml12", _load_yaml, exceptions=(yaml.YAMLError,))


def parse(config_class: type[Config], argv: Sequence[str]) -> Config:
    """Reads settings from --config files and flags, in order; raises ValueError, in one line, for a wrong
    one.
    """
    hints = get_type_hints(config_class)
    sections = {name: class_ for name, class_ in hints.items() if is_dataclass(class_)}
    switches = {
        field.name: field.metadata["help"]
        for field in fields(config_class)  # type: ignore[arg-type]
        if field.name not in sections
    }
    known = [*setting_names(config_class), *switches]
    flags = [_without_alias(argument, known) for argument in argv]
    for flag in flags:
        if flag.startswith("--"):
            _check_key(
                flag[2:].partition("=")[0], [*known, *sections, "config", "help", "print_config"], "--"
            )
    for path in _config_files(flags):
        _check_file(path, known)
    short = [f"--{name} is --{full}" for name in ALIASES if (full := _full_name(name, known))]
    parser = jsonargparse.ArgumentParser(
        parser_mode="yaml12",
        exit_on_error=False,
        description=config_class.__doc__,
        epilog=f"Short names: {', '.join(short)}.",
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of settings; may be given more than once"
    )
    for section, class_ in sections.items():
        parser.add_class_arguments(class_, section)
    for action in parser._actions:
        if any(name.startswith(f"{action.dest}.") for name in known):
            action.help = SUPPRESS  # a section is no flag here: its name may be the short name of a setting
    for switch, told in switches.items():
        parser.add_argument(f"--{switch}", action="store_true", help=told)
    try:
        parsed = parser.instantiate(parser.parse_args(flags))
    except (ArgumentError, TypeError) as error:
        raise ValueError(" ".join(str(error).replace("Parser key ", "").split())) from error
    return config_class(**{name: parsed[name] for name in (*sections, *switches)})


def setting_names(config_class: Any, prefix: str = "") -> Iterator[str]:
    """The full names of all settings, as in section.key."""
    for name, class_ in get_type_hints(config_class).items():
        if is_dataclass(class_):
            yield from setting_names(class_, f"{prefix}{name}.")
        elif prefix:
            yield prefix + name


def _full_name(short: str, known: Sequence[str]) -> str | None:
    return next((full for full in ALIASES.get(short, ()) if full in known), None)


def _without_alias(argument: str, known: Sequence[str]) -> str:
    name, equals, value = argument.removeprefix("--").partition("=")
    full = _full_name(name, known) if argument.startswith("--") else None
    return f"--{full}{equals}{value}" if full else argument


def _check_key(key: str, known: Sequence[str], dashes: str = "") -> None:
    if key in known:
        return
    if key in RENAMED:
        raise ValueError(f"{dashes}{key} {RENAMED[key]}")
    short = [name for name in ALIASES if _full_name(name, known)] if dashes else []
    nearest = difflib.get_close_matches(key, [*known, *short], 1, 0.4)
    hint = f"did you mean {dashes}{nearest[0]}?" if nearest else "see --help"
    raise ValueError(f"unknown setting {dashes}{key}; {hint}")


def _config_files(flags: Sequence[str]) -> list[str]:
    given = [flag.partition("=")[2] for flag in flags if flag.startswith("--config=")]
    return given + [after for flag, after in zip(flags, flags[1:], strict=False) if flag == "--config"]


def _check_file(path: str, known: Sequence[str]) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            content = _load_yaml(file.read())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(keys, dict) for keys in content.values()):
        raise ValueError(
            f"--config {path} must hold sections of settings, such as 'input: {{path: a.jsonl}}'"
        )
    for key in _keys(content, known):
        try:
            _check_key(key, known)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _keys(content: Mapping[str, Any], known: Sequence[str], prefix: str = "") -> Iterator[str]:
    """The full names of the settings that a file sets."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in known:
            yield from _keys(value, known, f"{name}.")
        else:
            yield name
