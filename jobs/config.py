"""YAML files and flags into frozen dataclasses: one parser for every job. Knows no group's meaning.

    config = parse(OfflineConfig, ["--config", "jobs/configs/demo.yaml", "--limit", "10"])

A config class is a dataclass of groups, each a dataclass; `--group.key value` sets a key, and later ones win.
A field that is no group is a switch, off unless its flag is given; its metadata's help tells what it does.
"""

import difflib
import re
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import jsonargparse
import yaml

ALIASES = {
    "input": "input.path",
    "output": "output.path",
    "model": "model.path",
    "speculate": "speculation.mode",
    "limit": "input.limit",
    "host": "serve.host",
    "port": "serve.port",
    "dry-run": "dry_run",
}
Config = TypeVar("Config")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: `mode: off` is the word off, and 1e-3 is a number."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rsplit(":", 1)[1] not in ("bool", "float", "timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))
_FLOAT = re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|^[-+]?\.inf$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


jsonargparse.set_loader("yaml12", _load_yaml, exceptions=(yaml.YAMLError,))


def parse(config_class: type[Config], argv: Sequence[str]) -> Config:
    """Settings from --config files and flags, in order; raises ValueError in one line for anything that is
    not right.
    """
    groups = {name: class_ for name, class_ in get_type_hints(config_class).items() if is_dataclass(class_)}
    switches = {
        field.name: field.metadata["help"]
        for field in fields(config_class)  # type: ignore[arg-type]
        if field.name not in groups
    }
    known = [f"{group}.{field.name}" for group, class_ in groups.items() for field in fields(class_)]
    flags = [_without_alias(argument, [*known, *switches]) for argument in argv]
    _check_flags(flags, [*known, *groups, *switches, "config", "help", "print_config"])
    for path in _config_files(flags):
        _check_file(path, known)
    parser = jsonargparse.ArgumentParser(
        parser_mode="yaml12", exit_on_error=False, description=config_class.__doc__
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of settings; may be given more than once"
    )
    for group, class_ in groups.items():
        parser.add_class_arguments(class_, group)
    for switch, told in switches.items():
        parser.add_argument(f"--{switch}", action="store_true", help=told)
    try:
        parsed = parser.instantiate(parser.parse_args(flags))
    except (ArgumentError, TypeError) as error:
        raise ValueError(" ".join(str(error).replace("Parser key ", "").split())) from error
    return config_class(**{name: parsed[name] for name in (*groups, *switches)})


def _without_alias(argument: str, known: Sequence[str]) -> str:
    name, equals, value = argument.removeprefix("--").partition("=")
    full = ALIASES.get(name) if argument.startswith("--") else None
    return f"--{full}{equals}{value}" if full in known else argument


def _check_flags(flags: Sequence[str], known: Sequence[str]) -> None:
    for flag in flags:
        if flag.startswith("--"):
            _check_key(flag[2:].partition("=")[0], known, "--")


def _check_key(key: str, known: Sequence[str], dashes: str = "") -> None:
    if key not in known:
        nearest = difflib.get_close_matches(key, [*known, *ALIASES] if dashes else known, 1, 0.4)
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
            f"--config {path} must hold groups of settings, such as 'input: {{path: prompts.jsonl}}'"
        )
    for group, keys in content.items():
        for key in keys:
            try:
                _check_key(f"{group}.{key}", known)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
