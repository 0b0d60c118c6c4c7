"""Recorded outputs and their files: JSONL, plain or .gz, one {"id", "group", "prompt", "output"} a line.

Owns the checks of what a user hands in: a ValueError names the file, the line and what was found.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drafting.likely import Likely
from drafting.sampling import Sampling
from drafting.tree import Int32

# Far above any vocabulary; a table learned from text has a row for each id.
MAX_ID = 2**22 - 1
Encode = Callable[[str, bool], list[int]]


@dataclass(frozen=True)
class Transcript:
    """A recorded output: what was asked, and what came. group: rows that resemble each other.

    likely: what the model said at each output token, None = that is not known. sampling: how the output was
    drawn, None = that is not known.
    """

    id: str
    group: str
    prompt_ids: Int32
    output_ids: Int32
    likely: Likely | None = None
    sampling: Sampling | None = None

    @property
    def max_id(self) -> int:
        """The highest token id in it."""
        return int(max(self.prompt_ids.max(initial=0), self.output_ids.max(initial=0)))


def read_transcripts(path: Path, encode: Encode | None = None) -> Iterator[Transcript]:
    """The transcripts of one file; encode(text, is_prompt) makes ids of prompts and outputs that are text."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield _parse(line, encode)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not number:
        raise ValueError(f"{path} is empty; it must hold one transcript a line")


def _parse(line: bytes, encode: Encode | None) -> Transcript:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(
            f'found {type(fields).__name__}; a line must be {{"id", "group", "prompt", "output"}}'
        )
    prompt_ids = _token_ids(fields, "prompt", encode)
    if not len(prompt_ids):
        raise ValueError("the prompt is empty; it must have at least one token")
    return Transcript(
        str(fields.get("id")), str(fields.get("group", "")), prompt_ids, _token_ids(fields, "output", encode)
    )


def _token_ids(fields: dict[str, Any], name: str, encode: Encode | None) -> Int32:
    value = fields.get(name)
    if isinstance(value, str):
        if encode is None:
            raise ValueError(f"{name} is text; give --tokenizer DIR, or token ids")
        value = encode(value, name == "prompt")
    if not isinstance(value, list):
        raise ValueError(f"{name} is {json.dumps(value)[:40]}; it must be a list of token ids, or text")
    for token in value:
        if type(token) is not int or not 0 <= token <= MAX_ID:
            raise ValueError(
                f"{name} holds {json.dumps(token)[:40]}; a token id is an integer from 0 to {MAX_ID}"
            )
    return np.array(value, np.int32)
