"""What the adaptive proposer finds, how likely it says it is, how it learns, and what it forgets."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafting.adaptive import layout
from drafting.adaptive.adaptive_proposer import SAVE_EVERY, AdaptiveProposer
from drafting.adaptive.calibration import Calibration
from drafting.adaptive.controller import choose
from drafting.adaptive.earnings import PROBE_EVERY
from drafting.adaptive.features import (
    FIRST_BIAS,
    NUM_BIASES,
    NUM_BUCKETS,
    NUM_PLAIN,
    NUM_SOURCES,
    SAID,
    TABLE_OF_VOTER,
    set_biases,
)
from drafting.likely import Likely, pack
from drafting.tables import Tables
from drafting.tree import CandidateTrees, Int32

NO_BIGRAM = Tables()


def ids(*tokens: int) -> Int32:
    return np.array(tokens, np.int32)


def proposer(tables: Tables = NO_BIGRAM, max_nodes: int = 16, corpus_tokens: int = 1000) -> AdaptiveProposer:
    return AdaptiveProposer(max_nodes=max_nodes, corpus_tokens=corpus_tokens, tables=tables)


def finished(drafter: AdaptiveProposer, *token_ids: int, group: str = "") -> None:
    drafter.finish(drafter.start(ids(*token_ids), group))


def found(drafter: AdaptiveProposer, *token_ids: int, group: str = "", depth: int = 9) -> CandidateTrees:
    state = drafter.start(ids(*token_ids), group)
    candidates = drafter.propose([state], ids(depth))
    drafter.drop(state)
    return candidates


def nodes(
    candidates: CandidateTrees, names: tuple[str, ...] = AdaptiveProposer.source_names
) -> set[tuple[int, int, str]]:
    """(token, parent, source) of each node."""
    return {
        (int(t), int(p), names[s])
        for t, p, s in zip(candidates.token_ids, candidates.parents, candidates.sources, strict=True)
    }


def first(candidates: CandidateTrees) -> list[int]:
    """The children of the root, likeliest first."""
    return candidates.token_ids[candidates.parents == 0].tolist()


def test_what_followed_earlier_is_proposed_to_the_end_of_what_is_known() -> None:
    candidates = found(proposer(), 7, 8, 9, 7)
    assert candidates.token_ids.tolist()[:3] == [8, 9, 7]
    assert candidates.parents.tolist()[:3] == [0, 1, 2]
    assert candidates.depths.tolist()[:3] == [1, 2, 3]


def test_a_node_knows_how_many_tokens_before_it_are_the_same_where_it_was_found() -> None:
    # 6 2 3 and 5 2 3 came before: after 5 2 3 the first shares two tokens with the present, the second three.
    tables = Tables(bigram=np.full((10, 1), 9, np.int32))
    candidates = found(proposer(tables), 6, 2, 3, 7, 5, 2, 3, 4, 5, 2, 3, depth=1)
    match_of = dict(zip(candidates.token_ids.tolist(), candidates.matches.tolist(), strict=True))
    assert match_of == {7: 2, 4: 3, 9: 0}


def test_a_longer_match_counts_for_more_than_a_later_one() -> None:
    # After 1 2 3 came 4; after 3 alone, later, 9.
    assert first(found(proposer(), 1, 2, 3, 4, 6, 3, 9, 1, 2, 3)) == [4, 9]


def test_of_equal_matches_the_one_with_more_votes_is_likelier() -> None:
    assert first(found(proposer(), 5, 6, 1, 5, 8, 2, 5, 6, 3, 5)) == [6, 8]


def test_where_one_token_differs_the_text_is_followed_past_it() -> None:
    # 9 stands where 8 did, after 1 2 3; nothing followed 9 yet.
    candidates = found(proposer(), 1, 2, 3, 8, 4, 5, 6, 1, 2, 3, 9, depth=3)
    assert nodes(candidates) == {(4, 0, "context"), (5, 1, "context"), (6, 2, "context")}
    assert candidates.matches.tolist() == [0, 1, 2], "tokens right before the candidate that are the same"


def test_a_text_is_followed_past_a_token_in_siblings_and_other_rows_too() -> None:
    drafter = proposer()
    finished(drafter, 1, 2, 8, 4, group="a")
    finished(drafter, 1, 2, 7, 5, group="b")
    assert nodes(found(drafter, 1, 2, 9, group="a")) == {(4, 0, "siblings"), (5, 0, "corpus")}


def test_a_text_that_said_the_same_token_is_no_gap() -> None:
    # 1 2 3 was followed by 4 before, and is now: what follows 4 is found by the match of four, once.
    drafter = proposer()
    candidates = found(drafter, 1, 2, 3, 4, 5, 1, 2, 3, 4, depth=1)
    assert candidates.matches.tolist() == [4]
    assert candidates.weighed is not None
    table = TABLE_OF_VOTER[layout.GAP]
    assert candidates.weighed[1][0, table] == table * NUM_BUCKETS, "no vote past a gap"


def test_candidates_are_told_apart_by_how_often_their_row_has_said_them() -> None:
    drafter = proposer(Tables(bigram=np.array([[5, 6, 7]] * 8, np.int32)))
    drafter.drop(drafter.start(ids(*[7] * 300)))  # another row's, in the slot that is used next
    candidates = found(drafter, 6, 2, 5, 3, 5, 1, 5, 0, depth=1)
    assert candidates.weighed is not None
    candidates, features_GF, offsets, _, _ = candidates.weighed
    buckets = features_GF[: offsets[1], SAID] - SAID * NUM_BUCKETS
    bucket_of = dict(zip(candidates["token"][: offsets[1]].tolist(), buckets.tolist(), strict=True))
    # Six buckets, one for each source, for: never, once, twice, 3 or 4 times.
    assert NUM_SOURCES == 6
    assert bucket_of == {5: 6 * 3 + layout.BIGRAM, 6: 6 * 1 + layout.BIGRAM, 7: 6 * 0 + layout.BIGRAM}


def test_what_rows_have_said_is_kept_apart_for_more_rows_than_there_was_room_for() -> None:
    drafter = proposer()
    states = [drafter.start(ids(*[token] * 300)) for token in range(40)]
    said_HN = drafter.arena.arrays.said_HN
    assert [int(said_HN[state, token]) for token, state in enumerate(states)] == [255] * 40, (
        "as many as a byte holds"
    )
    assert said_HN.sum() == 255 * 40


def test_biases_tell_kinds_of_candidates_apart() -> None:
    features = np.zeros((3, NUM_PLAIN), np.int32)
    for number, (token, kind) in enumerate([(7, 3), (7, 8), (5, 3)]):
        set_biases(features[number], token, kind, 11, 12)
    biases = features[:, FIRST_BIAS : FIRST_BIAS + NUM_BIASES]
    same = biases == biases[0]
    # In order: the last token, it and the kind, the two last and the kind, the candidate and the kind, the
    # last and the candidate, all.
    assert same[1].tolist() == [True, False, False, False, True, False]
    assert same[2].tolist() == [True, True, True, False, False, False]


def test_rows_of_the_same_group_are_told_from_others() -> None:
    drafter = proposer()
    finished(drafter, 1, 2, 3, group="a")
    finished(drafter, 1, 2, 4, group="b")
    assert {(t, s) for t, p, s in nodes(found(drafter, 1, 2, group="a")) if p == 0} == {
        (3, "siblings"),
        (4, "corpus"),
    }


def test_a_running_sibling_is_drafted_from_before_it_has_ended() -> None:
    drafter = proposer()
    state = drafter.start(ids(1, 2), "a")
    drafter.extend([state], ids(3), np.array([0, 1]))
    assert nodes(found(drafter, 1, 2, group="a")) == {(3, 0, "siblings")}


def test_rows_without_a_group_are_no_siblings() -> None:
    drafter = proposer()
    finished(drafter, 1, 2, 3)
    assert nodes(found(drafter, 1, 2)) == {(3, 0, "corpus")}


def test_the_oldest_finished_rows_are_forgotten_first() -> None:
    drafter = proposer(corpus_tokens=8)  # a row takes one place more than it has tokens
    for last in (3, 4, 5):
        finished(drafter, 1, 2, last)
    assert sorted(first(found(drafter, 1, 2))) == [4, 5]
    drafter.clear()
    assert first(found(drafter, 1, 2)) == []


def test_of_many_groups_only_rows_that_are_kept_count_as_siblings() -> None:
    drafter = proposer(corpus_tokens=8)
    for number in range(50):
        finished(drafter, 1, 2, number, group=f"group {number}")
    assert nodes(found(drafter, 1, 2, group="group 49")) == {(49, 0, "siblings"), (48, 0, "corpus")}
    assert nodes(found(drafter, 1, 2, group="group 47")) == {(49, 0, "corpus"), (48, 0, "corpus")}


def test_a_group_may_have_any_name_that_a_row_can_give_it() -> None:
    drafter = proposer()
    name = "\ud800"  # what json.loads makes of half a character; it has no UTF-8
    finished(drafter, 1, 2, 3, group=name)
    assert nodes(found(drafter, 1, 2, group=name)) == {(3, 0, "siblings")}


def test_a_dropped_row_is_forgotten_at_once_and_its_room_is_used_again() -> None:
    drafter = proposer()
    for _ in range(3 * len(drafter.arena.arrays.segments)):
        drafter.drop(drafter.start(ids(1, 2, 3)))
    assert first(found(drafter, 1, 2)) == []
    assert len(drafter.arena.arrays.segments) == 256


def test_rows_longer_than_a_block_and_more_than_the_arena_held_are_found_again() -> None:
    drafter = proposer(corpus_tokens=10**6)
    text = np.arange(layout.SEGMENT_TOKENS * 300, dtype=np.int32)  # more than the 256 blocks it begins with
    for part in (text[:100], text[100:]):
        drafter.finish(drafter.start(part))
    candidates = found(drafter, 161, 162, 163, depth=16)
    assert candidates.token_ids.tolist() == list(range(164, 180))


def test_no_draft_runs_from_one_row_into_the_next_of_its_segment() -> None:
    drafter = proposer()
    finished(drafter, *range(100, 120))
    finished(drafter, 4, 5, 6)
    places = (drafter.arena.arrays.tokens >= 0).nonzero()[0]
    assert (places // layout.SEGMENT_TOKENS).tolist() == [0] * 23
    # After a long match no node looks for occurrences of its own; it goes on where its parent's do.
    assert nodes(found(drafter, *range(101, 118))) == {(118, 0, "corpus"), (119, 1, "corpus")}
    assert found(drafter, 119, 4, 5).matches.tolist() == [2], "the 119 of the row before is no match"


def test_no_draft_goes_where_a_dropped_row_went_on() -> None:
    # The dropped row began in segment 0 and went on in segment 1. After it a row ends where segment 0 ends,
    # and another one begins where segment 1 does.
    drafter = proposer()
    finished(drafter, 1, 2, 3)
    drafter.drop(drafter.start(ids(*[4] * 100)))
    finished(drafter, *range(100, 160))
    finished(drafter, 9, 10)
    assert drafter.arena.arrays.tokens[[63, 64]].tolist() == [159, 9]
    assert nodes(found(drafter, *range(130, 159))) == {(159, 0, "corpus")}


def test_rows_of_one_segment_are_told_apart_by_their_groups() -> None:
    drafter = proposer()
    finished(drafter, 1, 2, 3, group="a")
    finished(drafter, 1, 2, 4)
    finished(drafter, 1, 2, 5, group="b")
    assert {node[::2] for node in nodes(found(drafter, 1, 2, group="b", depth=1))} == {
        (3, "corpus"),
        (4, "corpus"),
        (5, "siblings"),
    }


def test_the_bigram_is_chained_from_every_leaf_and_recycled() -> None:
    drafter = proposer(Tables(np.array([[1, 2], [2, -1], [3, -1], [-1, -1]], np.int32)), max_nodes=4)
    assert nodes(found(drafter, 0, depth=2)) == {
        (1, 0, "bigram"),
        (2, 0, "bigram"),
        (2, 1, "bigram"),
        (3, 2, "bigram"),
    }
    said = Likely(np.array([[3, 1, 2], [1, 2, 3]], np.int32), np.log(np.full((2, 3), 0.3, np.float32)))
    drafter.recycle(ids(0, 9), pack(*said))  # 9 is no token of this table
    assert sorted(first(found(drafter, 0, depth=1))) == [1, 3]


def test_depth_and_size_are_limited() -> None:
    drafter = proposer(max_nodes=4)
    states = [drafter.start(ids(7, 7, 7, 7, 7, 7)) for _ in range(3)]
    candidates = drafter.propose(states, ids(0, 2, 99))
    assert candidates.offsets.tolist() == [0, 0, 2, 6]


def test_a_draft_that_was_never_verified_learns_from_the_truth_and_comes_back() -> None:
    drafter = proposer()
    state = drafter.start(ids(*[1, 2, 3, 4] * 3))
    drafter.calibration.weights -= 8  # as if matches had never been right
    for step in range(60):
        candidates = drafter.propose([state], ids(9))
        if (candidates.survival >= 0.5).any():
            break
        drafter.learn([state], candidates, ids([1, 2, 3, 4][step % 4]), np.array([0, 1]))
    assert 0 < step < 59


def test_only_candidates_whose_parent_was_right_are_scored() -> None:
    drafter = proposer()
    state = drafter.start(ids(1, 2, 3, 1))
    candidates = drafter.propose([state], ids(9))  # 2, then 3 after it, then 1
    drafter.learn([state], candidates, ids(9), np.array([0, 1]))
    # The root had one candidate, seen once in each of the 7 tables; those after the wrong 2 taught nothing.
    assert drafter.calibration.seen.sum() == 7


def test_calibration_is_saved_and_loaded_and_a_torn_file_is_no_calibration(tmp_path: Path) -> None:
    taught = Calibration()
    path = tmp_path / "calibration.npz"
    taught.weights[:] = 0.25
    taught.biases[:] = 1.0
    taught.save(path)
    fresh = Calibration()
    assert fresh.load(path) and (fresh.weights == 0.25).all()
    assert not fresh.biases.any(), "traces of a job's texts stay with it"
    path.write_bytes(path.read_bytes()[:-30])
    assert not Calibration().load(path)
    assert not Calibration().load(tmp_path / "none.npz")


def test_what_a_worker_learned_is_there_for_the_next(tmp_path: Path) -> None:
    home = tmp_path / "weights" / "calibration.npz"
    first = AdaptiveProposer(max_nodes=4, corpus_tokens=10, tables=NO_BIGRAM, home=home)
    state = first.start(ids(1, 2, 3, 1))
    for _ in range(SAVE_EVERY):
        first.learn([state], first.propose([state], ids(1)), ids(2), np.array([0, 1]))
    second = AdaptiveProposer(max_nodes=4, corpus_tokens=10, tables=NO_BIGRAM, home=home)
    assert (second.calibration.weights == first.calibration.weights).all()
    assert not (second.calibration.weights == Calibration().weights).all()


def test_a_place_that_cannot_be_written_costs_no_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    drafter = AdaptiveProposer(
        max_nodes=4, corpus_tokens=10, tables=NO_BIGRAM, home=tmp_path / "file" / "calibration.npz"
    )
    state = drafter.start(ids(1, 2))
    for _ in range(2 * SAVE_EVERY):
        drafter.learn([state], drafter.propose([state], ids(1)), ids(2), np.array([0, 1]))
    assert caplog.text.count("calibration is not kept") == 1


def test_clearing_forgets_texts_and_keeps_what_sources_are_worth() -> None:
    drafter = proposer()
    finished(drafter, 7, 8, 9, 7, 8, 9)
    state = drafter.start(ids(1, 2, 3, 1))
    drafter.learn([state], drafter.propose([state], ids(1)), ids(2), np.array([0, 1]))
    weights = drafter.calibration.weights.copy()
    drafter.clear()
    assert nodes(found(drafter, 7, 8)) == set()
    assert not drafter.calibration.biases.any()
    assert (drafter.calibration.weights == weights).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=4), st.floats(0, 0.3)
)
def test_no_node_comes_before_its_parent_nor_outlives_it(rows: list[list[int]], price: float) -> None:
    drafter = proposer(Tables(np.array([[1, 2], [2, 3], [3, 0], [0, 1]], np.int32)))
    states = [drafter.start(ids(*row), "g") for row in rows]
    candidates = drafter.propose(states, np.full(len(rows), 9, np.int32))
    for begin, end in zip(candidates.offsets[:-1], candidates.offsets[1:], strict=True):
        survival = np.concatenate([[1.0], candidates.survival[begin:end]])
        parents = candidates.parents[begin:end]
        depths = np.concatenate([[0], candidates.depths[begin:end]])
        assert (parents < np.arange(1, end - begin + 1)).all()
        assert (survival[1:] <= survival[parents]).all() and (np.diff(survival) <= 0).all()
        assert (depths[1:] == depths[parents] + 1).all()
        assert (
            len({*zip(parents.tolist(), candidates.token_ids[begin:end].tolist(), strict=True)})
            == end - begin
        ), "equal siblings"
    trees = choose(candidates, 0.1 * np.arange(99), price=1 + price)
    assert (np.diff(trees.offsets) <= np.diff(candidates.offsets)).all()


def test_other_rows_are_looked_through_only_now_and_then_while_nothing_comes_of_it():
    drafter = proposer()
    finished(drafter, 5, 6, 7, 8)
    assert (7, 0, "corpus") in nodes(found(drafter, 1, 5, 6))
    for _ in range(60):
        drafter.reward(np.array([layout.OWN] * 50, np.uint8))
    looks = [(7, 0, "corpus") in nodes(found(drafter, 1, 5, 6)) for _ in range(2 * PROBE_EVERY)]
    assert looks.count(True) == 2
    drafter.reward(np.array([layout.ALL] * 100, np.uint8))
    assert (7, 0, "corpus") in nodes(found(drafter, 1, 5, 6))
