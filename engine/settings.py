"""How settings check themselves: a field of a settings class knows its range, and an error names value and
limit.

Standard library only: the driver imports this without torch.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

# What counts as of a type.
INSTANCES: dict[Any, tuple[type, ...]] = {float: (int, float), list: (list, tuple)}


def setting(
    default: Any, wanted: str, fits: Callable[[Any], bool] = lambda value: True, served: bool = True
) -> Any:
    """A field of a settings class.

    wanted: what it must be, in words; served: whether the endpoint takes it.
    """
    metadata = {"wanted": wanted, "fits": fits, "served": served}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def at_least(least: float) -> Callable[[Any], bool]:
    """A check that passes values from `least` up, and an absent value."""
    return lambda value: value is None or least <= value < float("inf")


def check(settings: type, values: Mapping[str, object], prefix: str = "") -> None:
    """Raises ValueError for the first value that its field does not allow; fields that are absent pass."""
    for name, (types, optional, known) in _checked_fields(settings).items():
        if name not in values or (optional and values[name] is None):
            continue
        value = values[name]
        right_type = isinstance(value, types) and (bool in types or not isinstance(value, bool))
        if not right_type or not known.metadata["fits"](value):
            raise ValueError(f"{prefix}{name} is {shown(value)}; it must be {known.metadata['wanted']}")


@cache
def _checked_fields(settings: Any) -> dict[str, tuple[tuple[type, ...], bool, Field[Any]]]:
    """By name: the types that a value may have, whether it may be absent, and the field."""
    hints = get_type_hints(settings)
    found = {}
    for known in fields(settings):
        if "fits" in known.metadata:
            hint = hints[known.name]
            alternatives = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            types = tuple(
                type_
                for alternative in alternatives
                for type_ in INSTANCES.get(get_origin(alternative) or alternative, (alternative,))
            )
            found[known.name] = (types, type(None) in alternatives, known)
    return found


def shown(value: object) -> str:
    """A value as an error shows it, which is short; settings and requests are written in YAML and JSON."""
    try:
        text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply to show"
    return text if len(text) <= 60 else text[:57] + "..."
