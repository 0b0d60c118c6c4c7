"""Lines of transcripts: what they say of log-probabilities and draws, and one readable error for each way to
get them wrong.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drafting.likely import Likely
from drafting.replay.transcripts import Transcript, read_transcripts, to_line
from drafting.sampling import Sampling
from engine.config import check_generation

ROW = {"id": "a", "group": "chat", "prompt": [5, 7], "output": [7, 8, 9]}
IDS = [[7, 1], [], [9]]
LOGPROBS = [[-0.5, -1.25], [], [0]]


def read(path: Path, **fields: Any) -> Transcript:
    """The transcript that a line with these fields makes."""
    path = path / "a.jsonl"
    path.write_text(json.dumps({**ROW, **fields}) + "\n")
    (transcript,) = read_transcripts(path)
    return transcript


def test_a_line_without_log_probabilities_and_sampling_knows_neither(tmp_path: Path) -> None:
    for transcript in (read(tmp_path), read(tmp_path, logprobs=None, sampling=None)):
        assert transcript.likely is None
        assert transcript.sampling is None
        assert transcript.max_id == 9


def test_short_places_are_filled_up(tmp_path: Path) -> None:
    likely = read(tmp_path, logprobs=[IDS, LOGPROBS]).likely
    assert likely is not None
    assert likely.ids.tolist() == [[7, 1], [-1, -1], [9, -1]]
    assert likely.logprobs.tolist() == [[-0.5, -1.25], [0, 0], [0, 0]]
    assert (likely.ids.dtype, likely.logprobs.dtype) == (np.int32, np.float32)


def test_places_of_which_nothing_is_known_have_one_empty_entry(tmp_path: Path) -> None:
    likely = read(tmp_path, logprobs=[[[], [], []], [[], [], []]]).likely
    assert likely is not None
    assert likely.ids.tolist() == [[-1], [-1], [-1]]
    nothing = read(tmp_path, output=[], logprobs=[[], []]).likely
    assert nothing is not None
    assert nothing.ids.shape == nothing.logprobs.shape == (0, 1)


def test_the_highest_id_may_be_one_that_was_only_likely(tmp_path: Path) -> None:
    assert read(tmp_path, logprobs=[[[70], [], []], [[-1], [], []]]).max_id == 70


def test_settings_that_are_absent_or_null_have_the_engines_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, sampling={"seed": 3, "top_p": None}).sampling == Sampling(seed=3)
    given = {"temperature": 1, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 0}
    assert read(tmp_path, sampling=given).sampling == Sampling(1, 0.9, 40, 0.05, 0)


@pytest.mark.parametrize(("seed", "counts"), [(2**64 - 1, 2**64 - 1), (-1, 2**64 - 1), (2**64 + 5, 5)])
def test_64_bits_of_a_seed_count(tmp_path: Path, seed: int, counts: int) -> None:
    sampling = read(tmp_path, sampling={"seed": seed}).sampling
    assert sampling is not None
    assert sampling.seed == counts


@pytest.mark.parametrize(
    ("logprobs", "complaint"),
    [
        (5, "logprobs is 5; it must be [ids, logprobs], in both a list for each output token"),
        ([IDS], "it must be [ids, logprobs]"),
        ([IDS, LOGPROBS, []], "it must be [ids, logprobs]"),
        ([[7, 8, 9], [-1, -1, -1]], "it must be [ids, logprobs], in both a list for each output token"),
        ({"ids": IDS}, "it must be [ids, logprobs]"),
        (
            [IDS[:2], LOGPROBS],
            "logprobs has ids for 2 output tokens, but the output has 3; give a list for each, "
            "[] where nothing is known",
        ),
        ([IDS, [*LOGPROBS, []]], "has log-probabilities for 4 output tokens, but the output has 3"),
        (
            [IDS, [[-0.5], [], [0]]],
            "logprobs has 2 ids and 1 log-probabilities for output[0]; give one log-probability for each id",
        ),
        ([[[7, -1], [], [9]], LOGPROBS], "logprobs holds -1; a token id is an integer from 0 to 4194303"),
        ([[[7, 1.0], [], [9]], LOGPROBS], "logprobs holds 1.0; a token id is"),
        ([[[7, 2**22], [], [9]], LOGPROBS], "logprobs holds 4194304; a token id is"),
        ([[[7, True], [], [9]], LOGPROBS], "logprobs holds true; a token id is"),
        (
            [IDS, [[0.5, -1], [], [0]]],
            "logprobs holds 0.5 for output[0]; a log-probability is a finite number of at most 0",
        ),
        ([IDS, [[-0.5, -1], [], [float("nan")]]], "logprobs holds NaN for output[2]"),
        ([IDS, [[-0.5, -float("inf")], [], [0]]], "logprobs holds -Infinity for output[0]"),
        ([IDS, [[-0.5, None], [], [0]]], "logprobs holds null for output[0]"),
        ([IDS, [[-0.5, "x"], [], [0]]], 'logprobs holds "x" for output[0]'),
        ([[[7, 7], [], [9]], LOGPROBS], "logprobs names token 7 twice for output[0]; name each token once"),
        (
            [IDS, [[-1.25, -0.5], [], [0]]],
            "logprobs is not in order for output[0]; the likeliest token must come first",
        ),
        (
            [IDS, [[-0.1, -0.2], [], [0]]],
            "logprobs has probabilities for output[0] whose sum is 1.72; give natural logarithms",
        ),
    ],
)
def test_wrong_log_probabilities_are_told(tmp_path: Path, logprobs: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        read(tmp_path, logprobs=logprobs)
    assert str(error.value).startswith(f"{tmp_path}/a.jsonl, line 1: logprobs ")
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        (3, "sampling is 3; it must be an object of temperature, top_p, top_k, min_p, seed"),
        ({"temperature": 0.8}, "sampling has no seed; give the row's seed, or leave sampling out"),
        ({"seed": None}, "sampling has no seed"),
        ({"seed": 1.0}, "sampling.seed is 1.0; it must be an integer"),
        ({"seed": "7"}, 'sampling.seed is "7"; it must be an integer'),
        ({"seed": True}, "sampling.seed is true; it must be an integer"),
        (
            {"seed": 1, "max_tokens": 5},
            'sampling sets "max_tokens", which is not a setting; known are temperature, top_p',
        ),
        (
            {"seed": 1, "temperature": -1},
            "sampling.temperature is -1; it must be a number of at least 0 (0 = greedy)",
        ),
        (
            {"seed": 1, "top_p": 0},
            "sampling.top_p is 0; it must be a number above 0 and at most 1 (1 = off)",
        ),
        ({"seed": 1, "top_k": 1.5}, "sampling.top_k is 1.5; it must be an integer of at least 0 (0 = off)"),
        (
            {"seed": 1, "min_p": 1},
            "sampling.min_p is 1; it must be a number of at least 0 and below 1 (0 = off)",
        ),
    ],
)
def test_a_wrong_draw_is_told(tmp_path: Path, sampling: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        read(tmp_path, sampling=sampling)
    assert f"{tmp_path}/a.jsonl, line 1: {complaint}" in str(error.value)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "min_p", "seed"])
def test_the_ranges_are_those_of_the_engines_settings(tmp_path: Path, name: str) -> None:
    for value in (-1, -0.5, 0, 0.0, 0.5, 1, 1.0, 1.5, 7, 2**70, float("inf"), float("nan"), True, "x", []):
        try:
            check_generation({name: value}, "sampling.")
            refused = None
        except ValueError as error:
            refused = str(error).partition("; ")[2]
        try:
            read(tmp_path, sampling={"seed": 1, name: value})
            found = None
        except ValueError as error:
            found = str(error).partition("; ")[2]
        assert found == refused, value


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    ids = np.array([[7, 1], [8, -1], [-1, -1]], np.int32)
    logprobs = np.array([[-0.123449, -2.5], [2e-5, 0], [0, 0]], np.float32)
    sampling = Sampling(0.8, 0.95, 0, 0.01, 2**64 - 1)
    tokens = np.array([7, 8, 9], np.int32)
    transcript = Transcript(
        "0-3/1", "chat", np.array([5], np.int32), tokens, Likely(ids, logprobs), sampling, (7, 11)
    )
    bare = Transcript("0-4", "", np.array([5], np.int32), tokens)
    path = tmp_path / "a.jsonl"
    path.write_text(f"{to_line(transcript)}\n{to_line(bare)}\n")
    found, other = read_transcripts(path)
    assert (found.id, found.group, found.sampling) == ("0-3/1", "chat", sampling)
    assert (found.prediction_ids, found.max_id) == ((7, 11), 11)
    assert found.prompt_ids.tolist() == [5]
    assert found.output_ids.tolist() == [7, 8, 9]
    assert found.likely is not None
    assert found.likely.ids.tolist() == ids.tolist()
    np.testing.assert_allclose(found.likely.logprobs, [[-0.1234, -2.5], [0, 0], [0, 0]], rtol=1e-6)
    assert (other.likely, other.sampling, other.prediction_ids) == (None, None, ())


def test_a_wrong_prediction_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prediction holds -1; a token id is an integer from 0"):
        read(tmp_path, prediction=[-1])
