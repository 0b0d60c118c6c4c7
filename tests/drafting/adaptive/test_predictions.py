"""What a row drafts from besides rows: the prediction that came with it, which is its own, and the reference
texts, which stay.
"""

from pathlib import Path

import numpy as np
import pytest

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.calibration import Calibration
from drafting.tables import Tables
from drafting.tree import CandidateTrees, Int32


def ids(*tokens: int) -> Int32:
    return np.array(tokens, np.int32)


def proposer(corpus_tokens: int = 1000) -> AdaptiveProposer:
    return AdaptiveProposer(max_nodes=16, corpus_tokens=corpus_tokens, tables=Tables())


def begun(drafter: AdaptiveProposer, prompt: Int32, *prediction: int, group: str = "") -> int:
    return drafter.start(prompt, group, num_prompt=len(prompt), prediction_ids=prediction)


def said(drafter: AdaptiveProposer, state: int, *tokens: int) -> None:
    drafter.extend([state], ids(*tokens), np.array([0, len(tokens)]))


def nodes(drafter: AdaptiveProposer, state: int) -> list[tuple[int, int, str]]:
    """(token, parent, source) of each node, likeliest first."""
    trees: CandidateTrees = drafter.propose([state], ids(9))
    names = drafter.source_names
    return [
        (int(token), int(parent), names[source])
        for token, parent, source in zip(trees.token_ids, trees.parents, trees.sources, strict=True)
    ]


def test_the_first_token_of_the_output_is_drafted_from_the_beginning_of_the_prediction() -> None:
    drafter = proposer()
    state = begun(drafter, ids(1, 2), 7, 8, 9)
    assert nodes(drafter, state) == [
        (7, 0, "prediction"),
        (8, 1, "prediction"),
        (9, 2, "prediction"),
    ]


def test_later_tokens_follow_what_the_output_says() -> None:
    drafter = proposer()
    state = begun(drafter, ids(1, 2), 7, 8, 9, 6, 5)
    said(drafter, state, 9)  # its beginning was skipped
    assert nodes(drafter, state) == [(6, 0, "prediction"), (5, 1, "prediction")]
    said(drafter, state, 3)  # a word of its own, after which nothing is known
    assert nodes(drafter, state) == []
    said(drafter, state, 7, 8)
    assert nodes(drafter, state)[0] == (9, 0, "prediction")


def test_an_output_that_has_begun_is_not_drafted_from_the_beginning_again() -> None:
    drafter = proposer()
    state = drafter.start(ids(1, 2, 5), num_prompt=2, prediction_ids=(7, 8, 9))  # as after a preemption
    assert nodes(drafter, state) == []
    state = drafter.start(ids(1, 2, 7), num_prompt=2, prediction_ids=(7, 8, 9))
    assert nodes(drafter, state) == [(8, 0, "prediction"), (9, 1, "prediction")]


def test_a_prediction_is_followed_past_a_token_that_differs() -> None:
    drafter = proposer()
    state = begun(drafter, ids(1, 2), 7, 8, 9, 4, 6)
    said(drafter, state, 7, 8, 9, 5)  # 5 stands where 4 does
    assert nodes(drafter, state) == [(6, 0, "prediction")]


def test_a_prediction_runs_on_beyond_the_arena_that_there_was() -> None:
    drafter = proposer()
    text = range(100, 30_100)
    state = begun(drafter, ids(1, 2), *text)
    assert nodes(drafter, state)[0] == (100, 0, "prediction")
    said(drafter, state, *text[:20_000])
    assert nodes(drafter, state)[:2] == [(20_100, 0, "prediction"), (20_101, 1, "prediction")]


@pytest.mark.parametrize("group", ["", "same"])
def test_no_other_row_drafts_from_a_prediction(group: str) -> None:
    drafter = proposer()
    owner = begun(drafter, ids(1, 2), 7, 8, 9, 6, group=group)
    other = begun(drafter, ids(3, 7, 8, 9), group=group)
    third = begun(drafter, ids(3, 8, 9), 4, 5, group=group)
    assert nodes(drafter, other) == []
    assert nodes(drafter, third) == [(4, 0, "prediction"), (5, 1, "prediction")]
    assert nodes(drafter, owner)[0] == (7, 0, "prediction")
    # What a row has said, others may draft from, and the row itself too: that is no prediction.
    said(drafter, owner, 7, 8, 9)
    assert nodes(drafter, begun(drafter, ids(7, 8), group=group)) == [
        (9, 0, "siblings" if group else "corpus")
    ]


@pytest.mark.parametrize("end", ["finish", "drop"])
def test_a_prediction_is_forgotten_with_its_row(end: str) -> None:
    drafter = proposer()
    state = begun(drafter, ids(1, 2), *range(100, 200))
    getattr(drafter, end)(state)
    tokens = drafter.arena.arrays.tokens
    assert tokens[tokens >= 0].tolist() == ([1, 2] if end == "finish" else [])
    drafter.clear()
    room = drafter.arena.room
    assert room.num_free[0] == len(room.free), "all of its segments are free"
    assert nodes(drafter, begun(drafter, ids(1, 2))) == [], "the next row in its place has none"


def test_a_reference_text_is_drafted_from_and_stays_when_texts_are_forgotten() -> None:
    drafter = proposer(corpus_tokens=8)
    drafter.teach(ids(5, 6, 7, 8))
    drafter.teach(ids())
    wanted = [(7, 0, "reference"), (8, 1, "reference")]
    assert nodes(drafter, begun(drafter, ids(5, 6))) == wanted
    for number in range(40):  # more than there is room for
        drafter.finish(begun(drafter, ids(10 + number, 11, 12)))
    drafter.clear()
    assert nodes(drafter, begun(drafter, ids(1, 5, 6), group="a")) == wanted
    tokens = drafter.arena.arrays.tokens
    assert tokens[tokens >= 0].tolist().count(7) == 1


def test_a_reference_text_is_found_after_rows_that_repeated_it_were_forgotten() -> None:
    drafter = proposer(corpus_tokens=8)
    drafter.teach(ids(5, 6, 7, 8))
    drafter.finish(begun(drafter, ids(2, 5, 6, 7)))
    for number in range(600):  # their places are written anew
        drafter.finish(begun(drafter, ids(100 + number, 50, 51, 52)))
    assert nodes(drafter, begun(drafter, ids(9, 5, 6))) == [(7, 0, "reference"), (8, 1, "reference")]


def test_a_reference_text_and_what_a_row_said_are_told_apart() -> None:
    drafter = proposer()
    drafter.teach(ids(5, 6, 7))
    drafter.finish(begun(drafter, ids(5, 6, 8)))
    found = nodes(drafter, begun(drafter, ids(5, 6)))
    assert sorted(found) == [(7, 0, "reference"), (8, 0, "corpus")]


def test_what_a_prediction_gave_is_earned_by_no_other_source() -> None:
    drafter = proposer()
    state = begun(drafter, ids(1, 2), 7, 8)
    trees = drafter.propose([state], ids(9))
    before = drafter._earnings._accepted.copy()
    drafter.reward(trees.sources)
    gained = drafter._earnings._accepted - before
    assert [name for name, gain in zip(drafter.source_names, gained, strict=True) if gain > 0] == [
        "prediction"
    ]


@pytest.mark.parametrize(
    ("shape", "dtype"), [((7, 64), np.float32), ((35, 64), np.float64), ((35, 63), np.float32)]
)
def test_a_calibration_of_other_code_is_ignored(tmp_path: Path, shape: tuple[int, int], dtype: type) -> None:
    home = tmp_path / "calibration.npz"
    np.savez(home, weights=np.ones(shape, dtype), seen=np.ones(shape, dtype))
    assert Calibration().weights.shape == (35, 64)
    assert not Calibration().load(home)
    drafter = AdaptiveProposer(max_nodes=4, corpus_tokens=10, tables=Tables(), home=home)
    assert (drafter.calibration.weights == Calibration().weights).all()
    assert not drafter.calibration.seen.any()
