"""What a token costs in the arena, however short rows are, and that rows in one segment are kept apart."""

import gc
import tracemalloc
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafting.adaptive.arena import TokenArena, group_number
from drafting.adaptive.layout import OWNER_TOKENS, SEGMENT_TOKENS
from drafting.adaptive.segments import place_after, place_before

LIMIT = 1 << 15
# What 8 likely tokens add to the bytes of a place: 8 x 4, and as much for the places that growing adds in
# advance, a quarter at most.
BYTES_OF_LIKELY = 32 + 8


def begin(arena: TokenArena, length: int, group: str = "") -> int:
    """A running history of `length` tokens."""
    index = arena.add(group_number(group))
    arena.append(np.array([index]), np.arange(length, dtype=np.int32), np.array([0, length]))
    return index


def taken(length: int) -> int:
    """What a finished row counts: one place more than it has tokens, in whole fours."""
    return length // 4 * 4 + 4


def fill(arena: TokenArena, length: int, places: int) -> None:
    """Finishes rows of `length` tokens one after another that take `places`, each in a group of its own."""
    for number in range(places // taken(length)):
        arena.finish(begin(arena, length, f"group {number}"))


def num_used_places(arena: TokenArena) -> int:
    return int((arena.arrays.tokens >= 0).sum())


@pytest.mark.parametrize(
    ("length", "most", "most_with_likely"),
    [
        (1, 228, 384), (2, 124, 202), (3, 85, 137), (6, 85, 137), (16, 72, 121), (100, 62, 103),
        (3000, 62, 105),
    ],
)  # fmt: skip
def test_a_token_takes_few_bytes_however_short_its_row_is(
    length: int, most: int, most_with_likely: int
) -> None:
    for num_likely, limit in ((0, most), (8, most_with_likely)):
        arena = TokenArena(LIMIT, num_likely)
        fill(arena, length, 2 * LIMIT)
        assert arena.num_bytes / num_used_places(arena) < limit


@pytest.mark.parametrize("num_likely", [0, 8])
@pytest.mark.parametrize("length", [1, 2, 6, 16, 100, 5000])
def test_all_finished_rows_together_take_the_bytes_that_the_limit_allows(
    length: int, num_likely: int
) -> None:
    arena = TokenArena(LIMIT, num_likely)
    fill(arena, length, 2 * LIMIT)
    assert arena.num_bytes < (59 + (BYTES_OF_LIKELY if num_likely else 0)) * LIMIT


def test_the_bytes_that_are_counted_are_those_that_are_taken() -> None:
    fill(TokenArena(100), 2, 200)  # what is compiled and loaded here is no memory of rows
    gc.collect()
    tracemalloc.start()
    arena = TokenArena(LIMIT)
    fill(arena, 2, 2 * LIMIT)
    gc.collect()
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.95 < num_bytes / arena.num_bytes < 1.1  # the interpreter keeps some small objects


@pytest.mark.parametrize("length", [2, 16, 100])
def test_growing_copies_each_byte_a_few_times_at_most(length: int) -> None:
    arena = TokenArena(4 * LIMIT)
    copied = 0
    for _ in range(4 * LIMIT // taken(length)):
        arrays = arena.arrays
        arena.finish(begin(arena, length))
        if arena.arrays is not arrays:
            copied += sum(array.nbytes for array in arrays)
    assert copied < 5 * arena.num_bytes


@pytest.mark.parametrize("length", [1, 2, 6, 16, 100, 5000])
def test_once_the_limit_is_reached_nothing_grows_any_more(length: int) -> None:
    arena = TokenArena(LIMIT)
    fill(arena, length, 2 * LIMIT)
    arrays = arena.arrays
    fill(arena, length, 2 * LIMIT)
    assert arena.arrays is arrays


def test_many_short_rows_that_run_at_once_take_a_little_more_each() -> None:
    # 200 run at once, and each says one token at a time, as in a job.
    arena = TokenArena(LIMIT)
    rng = np.random.default_rng(0)
    running = [begin(arena, 1) for _ in range(200)]
    for _ in range(300):
        arena.append(np.array(running), np.ones(200, np.int32), np.arange(201))
        ends = rng.random(200) < 0.3
        for slot in np.flatnonzero(ends):
            arena.finish(running[slot])
            running[slot] = begin(arena, 1)
    assert arena.num_bytes < 59 * LIMIT + 12_000 * 200


def test_rows_without_a_token_leave_nothing() -> None:
    arena = TokenArena(1000)
    fill(arena, 3, 40)
    arena.finish(begin(arena, 0))
    before = arena.num_bytes
    gc.collect()
    tracemalloc.start()
    for _ in range(5000):
        arena.finish(begin(arena, 0))
    gc.collect()
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert arena.num_bytes == before
    assert num_bytes < 20 * 5000  # the interpreter keeps some


@pytest.mark.parametrize("limit", [0, 100])
def test_a_row_longer_than_the_limit_is_forgotten_and_the_others_are_kept(limit: int) -> None:
    arena = TokenArena(limit)
    fill(arena, 3, 40)
    kept = num_used_places(arena)
    arena.finish(begin(arena, 5000))
    assert num_used_places(arena) == kept == (30 if limit else 0)


Rows = dict[int, tuple[int, list[int]]]  # by first place: the id of a history, and its tokens


def check_integrity(arena: TokenArena, rows: Rows) -> None:
    """The arena holds these rows and nothing else, and counts its segments right."""
    arrays = arena.arrays
    room = arena.room
    holders: Counter[int] = Counter()  # of each segment
    for first, (owner, token_ids) in rows.items():
        places = [first]
        while (place := place_after(arrays, places[-1])) >= 0 and arrays.tokens[place] >= 0:
            places.append(place)
        assert arrays.tokens[places].tolist() == token_ids
        assert {int(arrays.owners["history"][place // OWNER_TOKENS]) for place in places} == {owner}
        back = [places[-1]]
        while (place := place_before(arrays, back[-1])) >= 0 and arrays.tokens[place] >= 0:
            back.append(place)
        assert back == places[::-1]
        holders.update({place // SEGMENT_TOKENS for place in places})
    assert num_used_places(arena) == sum(len(token_ids) for _, token_ids in rows.values())
    assert arrays.segments["histories"][list(holders)].tolist() == list(holders.values())
    free = room.free[: room.num_free[0]].tolist()
    assert sorted([*free, *holders]) == list(range(len(arrays.segments)))
    opened = room.open[: room.num_open[0]].tolist()
    assert len({*opened}) == len(opened) and {*opened} <= {*holders}
    assert (arrays.segments["used"][opened] < SEGMENT_TOKENS).all()


class Recorded:
    """An arena and what it has to hold."""

    def __init__(self, limit: int) -> None:
        self.arena = TokenArena(limit)
        self.running: dict[int, list[int]] = {}  # by index
        self.finished: list[tuple[int, int, list[int]]] = []  # first place, id, tokens; oldest first

    def extend(self, index: int, token_ids: list[int]) -> None:
        offsets = np.array([0, len(token_ids)])
        self.arena.append(np.array([index]), np.array(token_ids, np.int32), offsets)
        self.running[index] += token_ids

    def finish(self, index: int) -> None:
        history = self.arena.histories[index].copy()
        token_ids = self.running.pop(index)
        limit = self.arena.max_finished_places
        self.arena.finish(index)
        if token_ids and taken(len(token_ids)) <= limit:
            self.finished.append((int(history["first"]), int(history["id"]), token_ids))
        while sum(taken(len(token_ids)) for _, _, token_ids in self.finished) > limit:
            self.finished.pop(0)

    def rows(self) -> Rows:
        histories = self.arena.histories
        running = {
            int(histories["first"][index]): (int(histories["id"][index]), token_ids)
            for index, token_ids in self.running.items()
            if token_ids
        }
        return running | {first: (owner, token_ids) for first, owner, token_ids in self.finished}


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([0, 40, 700, 5000]), st.sampled_from([2, 9, 150]))
def test_rows_are_what_was_said_whatever_shares_their_segments(rng: Random, limit: int, longest: int) -> None:
    recorded = Recorded(limit)
    for _ in range(60):
        action = rng.random()
        if action < 0.3 or not recorded.running:
            index = recorded.arena.add(rng.choice([0, 1, 2]))
            recorded.running[index] = []
            recorded.extend(index, rng.choices(range(5), k=rng.randint(0, longest)))
        index = rng.choice(list(recorded.running))
        if 0.3 <= action < 0.6:
            recorded.extend(index, rng.choices(range(5), k=rng.randint(0, 3)))
        elif 0.6 <= action < 0.9:
            recorded.finish(index)
        elif 0.9 <= action < 0.98:
            recorded.arena.drop(index)
            del recorded.running[index]
        elif action >= 0.98:
            recorded.arena.clear()
            recorded.finished.clear()
        check_integrity(recorded.arena, recorded.rows())
