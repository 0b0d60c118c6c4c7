"""How deeply the values of a row may be nested.

Arrow's files hold 64 levels, and Python's own recursion ends some hundred levels further: one row beyond
would end the whole job.
"""

from typing import Any

from pipeline.formats.lines import BadRow

MAX_LEVELS = 50


def check_nesting(value: Any, text: str, what: str) -> None:
    """Raises BadRow for a JSON value that is nested too deeply. text: which it was read from."""
    num_brackets = text.count("[") + text.count("{")  # mostly few, so that nobody looks into the value
    if num_brackets > MAX_LEVELS and _is_deeper(value, MAX_LEVELS):
        raise too_deep(what)


def too_deep(what: str) -> BadRow:
    """The error for what is nested too deeply, also for the parser."""
    return BadRow(f"{what} is nested deeper than {MAX_LEVELS} levels; fix the row")


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)
