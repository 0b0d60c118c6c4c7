"""How likely tokens are packed: 20 bits of id, 12 of log-probability in steps of a 256th."""

import math

import numpy as np
import pytest

from drafting.likely import LOGPROBS, MAX_ID, PROBABILITIES, UNKNOWN, level_of, pack, token_of, unknown


def packed(ids: list[int], logprobs: list[float]) -> list[int]:
    """One place's entries."""
    return pack(np.array([ids], np.int32), np.array([logprobs], np.float32))[0].tolist()


def test_an_entry_holds_the_id_and_the_log_probability_in_256ths() -> None:
    assert packed([5, 7], [-0.5, -1.0]) == [5 * 4096 + 128, 7 * 4096 + 256]
    assert (token_of(np.uint32(5 * 4096 + 128)), level_of(np.uint32(5 * 4096 + 128))) == (5, 128)
    assert LOGPROBS[[0, 128, 256]].tolist() == [0.0, -0.5, -1.0]
    assert PROBABILITIES[256] == pytest.approx(math.exp(-1))


@pytest.mark.parametrize(
    ("logprob", "level"),
    [
        (0.0, 0),
        (-0.00195, 0),  # 0.4992 steps
        (-0.00196, 1),  # 0.5018
        (-1.0019, 256),
        (-1.002, 257),
        (0.1, 0),  # a rounding error of whoever made it
        (-15.996, 4095),
        (-16.0, 4095),  # below what can be said
        (-1e30, 4095),
        (-math.inf, 4095),
        (math.nan, 4095),
    ],
)
def test_a_log_probability_is_rounded_to_the_nearest_step_that_there_is(logprob: float, level: int) -> None:
    assert packed([3], [logprob]) == [3 * 4096 + level]


def test_the_highest_id_that_fits_is_kept_and_told_from_nothing() -> None:
    assert MAX_ID == 2**20 - 2
    (entry,) = packed([MAX_ID], [-math.inf])
    assert entry != UNKNOWN
    assert (token_of(np.uint32(entry)), level_of(np.uint32(entry))) == (MAX_ID, 4095)


@pytest.mark.parametrize("id_", [2**20 - 1, 2**20, 2**31 - 1, -1])
def test_from_an_id_that_is_none_or_does_not_fit_on_nothing_is_known(id_: int) -> None:
    assert packed([5, id_, 6], [-1.0, -1.5, -2.0]) == [5 * 4096 + 256, UNKNOWN, UNKNOWN]
    assert packed([id_, 5, 6], [-1.0, -1.5, -2.0]) == [UNKNOWN] * 3


def test_places_are_packed_each_for_itself() -> None:
    ids = np.array([[-1, 4], [4, -1], [4, 5]], np.int32)
    found = pack(ids, np.zeros((3, 2), np.float32)).tolist()
    assert found == [[UNKNOWN, UNKNOWN], [16384, UNKNOWN], [16384, 20480]]
    assert unknown(1, 2).tolist() == [[UNKNOWN, UNKNOWN]]
