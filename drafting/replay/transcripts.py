"""Recorded outputs and their files: JSONL, plain or .gz, one {"id", "group", "prompt", "output"} a line.

A line may also hold "logprobs", [ids, logprobs]: for each output token the model's likeliest tokens at its
place, best first, and their log-probabilities at temperature 1; and "sampling", the settings and the seed
that the output was drawn with.

Owns the checks of what a user hands in: a ValueError names the file, the line and what was found.

Letters: T output tokens, M likeliest tokens.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from drafting.likely import Likely
from drafting.sampling import Sampling
from drafting.tree import Int32

# Far above any vocabulary; a table learned from text has a row for each id.
MAX_ID = 2**22 - 1
LEAST_LOGPROB = float(np.finfo(np.float32).min)
MAX_SUM = 1.1  # of the probabilities at one place, which were rounded
DECIMALS = 4  # of a log-probability that is written; drafters keep fewer
SEED_BITS = 0xFFFFFFFFFFFFFFFF
# By setting: its types, what it must be in words, and the check. They are those of the engine's settings.
SAMPLING: dict[str, tuple[tuple[type, ...], str, Callable[[Any], bool]]] = {
    "temperature": ((int, float), "a number of at least 0 (0 = greedy)", lambda v: 0 <= v < math.inf),
    "top_p": ((int, float), "a number above 0 and at most 1 (1 = off)", lambda v: 0 < v <= 1),
    "top_k": ((int,), "an integer of at least 0 (0 = off)", lambda v: v >= 0),
    "min_p": ((int, float), "a number of at least 0 and below 1 (0 = off)", lambda v: 0 <= v < 1),
    "seed": ((int,), "an integer", lambda v: True),
}
Encode = Callable[[str, bool], list[int]]


@dataclass(frozen=True)
class Transcript:
    """A recorded output: what was asked, and what came.

    group: rows that resemble each other. likely: what the model said at the place of each output token, [T,
    M]; None = not recorded. sampling: how the output was drawn; None = unknown. prediction_ids: what the
    output was expected to become.
    """

    id: str
    group: str
    prompt_ids: Int32
    output_ids: Int32
    likely: Likely | None = None
    sampling: Sampling | None = None
    prediction_ids: tuple[int, ...] = ()

    @property
    def max_id(self) -> int:
        """The highest token id in it, those of the likeliest tokens and of the prediction included."""
        expected = max(self.prediction_ids, default=0)
        highest = max(expected, self.prompt_ids.max(initial=0), self.output_ids.max(initial=0))
        return int(highest if self.likely is None else max(highest, self.likely.ids.max(initial=0)))


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


def to_line(transcript: Transcript) -> str:
    """A transcript as a line of a file, without the line's end."""
    fields: dict[str, Any] = {
        "id": transcript.id,
        "group": transcript.group,
        "prompt": transcript.prompt_ids.tolist(),
        "output": transcript.output_ids.tolist(),
    }
    if transcript.likely is not None:
        lengths = (transcript.likely.ids >= 0).sum(axis=1).tolist()
        logprobs = np.minimum(transcript.likely.logprobs, 0).astype(np.float64).round(DECIMALS)
        fields["logprobs"] = [
            [place[:length] for place, length in zip(part.tolist(), lengths, strict=True)]
            for part in (transcript.likely.ids, logprobs)
        ]
    if transcript.sampling is not None:
        fields["sampling"] = vars(transcript.sampling)
    if transcript.prediction_ids:
        fields["prediction"] = transcript.prediction_ids
    return json.dumps(fields, separators=(",", ":"))


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
    output_ids = _token_ids(fields, "output", encode)
    expected = fields.get("prediction") is not None
    return Transcript(
        id=str(fields.get("id")),
        group=str(fields.get("group", "")),
        prompt_ids=prompt_ids,
        output_ids=output_ids,
        likely=_likely(fields.get("logprobs"), len(output_ids)),
        sampling=_sampling(fields.get("sampling")),
        prediction_ids=tuple(_token_ids(fields, "prediction", encode).tolist()) if expected else (),
    )


def _token_ids(fields: dict[str, Any], name: str, encode: Encode | None) -> Int32:
    value = fields.get(name)
    if isinstance(value, str):
        if encode is None:
            raise ValueError(f"{name} is text; give --tokenizer DIR, or token ids")
        value = encode(value, name == "prompt")
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_shown(value)}; it must be a list of token ids, or text")
    _check_ids(name, value)
    return np.array(value, np.int32)


def _check_ids(name: str, values: list[Any]) -> None:
    for token in values:
        if type(token) is not int or not 0 <= token <= MAX_ID:
            raise ValueError(f"{name} holds {_shown(token)}; a token id is an integer from 0 to {MAX_ID}")


def _likely(value: Any, num_tokens: int) -> Likely | None:
    """The likeliest tokens at each place, short places filled up with id -1 and log-probability 0."""
    if value is None:
        return None
    if not _is_pair(value):
        wanted = "[ids, logprobs], in both a list for each output token"
        raise ValueError(f"logprobs is {_shown(value)}; it must be {wanted}")
    for name, part in zip(("ids", "log-probabilities"), value, strict=True):
        if len(part) != num_tokens:
            found = f"logprobs has {name} for {len(part)} output tokens, but the output has {num_tokens}"
            raise ValueError(f"{found}; give a list for each, [] where nothing is known")
    for place, (ids, logprobs) in enumerate(zip(*value, strict=True)):
        _check_place(f"output[{place}]", ids, logprobs)
    most = max([1, *map(len, value[0])])
    likely = Likely(np.full((num_tokens, most), -1, np.int32), np.zeros((num_tokens, most), np.float32))
    for place, (ids, logprobs) in enumerate(zip(*value, strict=True)):
        likely.ids[place, : len(ids)] = ids
        likely.logprobs[place, : len(ids)] = logprobs
    return likely


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(part, list) and all(isinstance(place, list) for place in part) for part in value)
    )


def _check_place(place: str, ids: list[Any], logprobs: list[Any]) -> None:
    """Raises ValueError for what cannot be the likeliest tokens of one place."""
    if len(ids) != len(logprobs):
        found = f"logprobs has {len(ids)} ids and {len(logprobs)} log-probabilities for {place}"
        raise ValueError(f"{found}; give one log-probability for each id")
    _check_ids("logprobs", ids)
    for value in logprobs:
        if type(value) not in (int, float) or not LEAST_LOGPROB <= value <= 0:
            wanted = "a log-probability is a finite number of at most 0"
            raise ValueError(f"logprobs holds {_shown(value)} for {place}; {wanted}")
    if len(set(ids)) < len(ids):
        token = next(token for token in ids if ids.count(token) > 1)
        raise ValueError(f"logprobs names token {token} twice for {place}; name each token once")
    if any(after > before for before, after in pairwise(logprobs)):
        raise ValueError(f"logprobs is not in order for {place}; the likeliest token must come first")
    total = sum(map(math.exp, logprobs))
    if total > MAX_SUM:
        found = f"logprobs has probabilities for {place} whose sum is {total:.2f}"
        raise ValueError(f"{found}; give natural logarithms at temperature 1")


def _sampling(value: Any) -> Sampling | None:
    """The settings of a draw; those that are null count as absent."""
    if value is None:
        return None
    known = ", ".join(SAMPLING)
    if not isinstance(value, dict):
        raise ValueError(f"sampling is {_shown(value)}; it must be an object of {known}")
    settings = {name: setting for name, setting in value.items() if setting is not None}
    for name, setting in settings.items():
        if name not in SAMPLING:
            raise ValueError(f"sampling sets {_shown(name)}, which is not a setting; known are {known}")
        types, wanted, fits = SAMPLING[name]
        if type(setting) not in types or not fits(setting):
            raise ValueError(f"sampling.{name} is {_shown(setting)}; it must be {wanted}")
    if "seed" not in settings:
        raise ValueError("sampling has no seed; give the row's seed, or leave sampling out")
    return Sampling(**{**settings, "seed": settings["seed"] & SEED_BITS})


def _shown(value: Any) -> str:
    return json.dumps(value)[:40]
