"""What the model said is kept beside each token, and found again there: while the arena grows and forgets,
and where other histories had their places before.
"""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafting.adaptive import arena
from drafting.adaptive.arena import FIRST_SEGMENTS, TokenArena
from drafting.adaptive.layout import SEGMENT_TOKENS, Arena, Room
from drafting.adaptive.segments import place_after
from drafting.likely import UNKNOWN, UInt32

NUM_LIKELY = 3
Said = list[int]  # the entries of one place, as far as they are known


class Recorded:
    """An arena, and what was written in it: by first place, the tokens of a history and what was said."""

    def __init__(self, limit: int) -> None:
        self.arena = TokenArena(limit, NUM_LIKELY)
        self.running: dict[int, list[tuple[int, Said]]] = {}

    def begin(self) -> int:
        index = self.arena.add(0)
        self.running[index] = []
        return index

    def extend(self, index: int, token_ids: list[int], likely: UInt32 | None) -> None:
        offsets = np.array([0, len(token_ids)])
        self.arena.append(np.array([index]), np.array(token_ids, np.int32), offsets, likely)
        said: list[Said] = [[]] * len(token_ids)
        if likely is not None:
            said = [row[row != UNKNOWN].tolist()[:NUM_LIKELY] for row in likely]
        self.running[index] += zip(token_ids, said, strict=True)

    def check(self, first: int, wanted: list[tuple[int, Said]]) -> None:
        """A history is what was written."""
        arrays = self.arena.arrays
        place = first
        for token, said in wanted:
            assert arrays.tokens[place] == token
            entries = arrays.likely_PM[place].tolist()
            known = entries.index(UNKNOWN) if UNKNOWN in entries else NUM_LIKELY
            assert entries[:known] == said
            place = place_after(arrays, place)

    def check_running(self) -> None:
        for index, wanted in self.running.items():
            self.check(int(self.arena.histories["first"][index]), wanted)


def entries(rng: Random, num_tokens: int) -> UInt32 | None:
    """What was said at some places: nothing, or up to 4 entries, of which some places know fewer."""
    if rng.random() < 0.3:
        return None
    width = rng.randint(1, 4)
    likely = np.full((num_tokens, width), UNKNOWN, np.uint32)
    for place in range(num_tokens):
        known = rng.randint(0, width)
        likely[place, :known] = [rng.randrange(1 << 31) for _ in range(known)]
    return likely


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([0, 40, 700]), st.sampled_from([2, 9, 150]))
def test_what_was_said_is_found_where_it_was_said(rng: Random, limit: int, longest: int) -> None:
    recorded = Recorded(limit)
    for _ in range(40):
        action = rng.random()
        if action < 0.3 or not recorded.running:
            recorded.extend(recorded.begin(), rng.choices(range(5), k=2), None)
        index = rng.choice(list(recorded.running))
        if action < 0.6:
            num_tokens = rng.randint(0, longest)
            recorded.extend(index, rng.choices(range(5), k=num_tokens), entries(rng, num_tokens))
        elif action < 0.9:
            recorded.arena.finish(index)
            del recorded.running[index]
        else:
            recorded.arena.drop(index)
            del recorded.running[index]
        recorded.check_running()


@pytest.mark.parametrize("step", [1000, 20_000])
def test_what_was_said_is_still_there_after_the_arena_has_grown(step: int) -> None:
    recorded = Recorded(10**6)
    index = recorded.begin()
    text = np.arange(40_000)  # the arena begins with room for 16,384
    for first in range(0, len(text), step):
        part = text[first : first + step]
        recorded.extend(index, part.tolist(), np.stack([part, part + 1, part + 2], 1).astype(np.uint32))
    recorded.check_running()
    first = int(recorded.arena.histories["first"][index])
    recorded.arena.finish(index)
    recorded.check(first, recorded.running[index])


def test_a_place_that_another_history_had_says_nothing_of_it() -> None:
    recorded = Recorded(0)  # what has ended is forgotten at once
    index = recorded.begin()
    recorded.extend(index, [1, 2, 3], np.array([[11, 12, 13]] * 3, np.uint32))
    first = int(recorded.arena.histories["first"][index])
    recorded.arena.finish(index)
    recorded.running.clear()
    index = recorded.begin()
    recorded.extend(index, [4], None)
    recorded.extend(index, [5], np.array([[21]], np.uint32))
    recorded.extend(index, [6], np.array([[31, 32, 33, 34]], np.uint32))
    assert int(recorded.arena.histories["first"][index]) == first, "it has the same places"
    likely = recorded.arena.arrays.likely_PM[first : first + 3]
    assert likely[0, 0] == UNKNOWN
    assert likely[1, :2].tolist() == [21, UNKNOWN]
    assert likely[2].tolist() == [31, 32, 33], "no more than there is room for"


def test_an_arena_that_keeps_nothing_takes_what_was_said_and_drops_it() -> None:
    arena = TokenArena(100)
    index = arena.add(0)
    arena.append(np.array([index]), np.array([7], np.int32), np.array([0, 1]), np.array([[5]], np.uint32))
    assert arena.arrays.tokens[arena.histories["first"][index]] == 7
    assert arena.arrays.likely_PM.shape[1] == 0


def test_where_memory_is_short_what_was_said_is_forgotten_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = Recorded(1000)
    first = recorded.begin()
    recorded.extend(first, [5, 6, 7], np.array([[1, 2], [3, 4], [5, 6]], np.uint32))
    grown = arena._grown

    def with_little_memory(old: Arena, room: Room, more: int) -> tuple[Arena, Room]:
        if old.likely_PM.shape[1]:
            raise MemoryError
        return grown(old, room, more)

    monkeypatch.setattr(arena, "_grown", with_little_memory)
    text = list(range(FIRST_SEGMENTS * SEGMENT_TOKENS))
    index = recorded.begin()
    recorded.extend(index, text, np.full((len(text), 2), 9, np.uint32))
    assert recorded.arena.num_likely == 0
    assert "memory is short" in caplog.text
    tokens = recorded.arena.arrays.tokens
    place = int(recorded.arena.histories["first"][first])
    assert tokens[place : place + 3].tolist() == [5, 6, 7], "the texts themselves stay"
    assert int(recorded.arena.histories["length"][index]) == len(text)


def test_memory_that_is_short_even_without_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(old: Arena, room: Room, more: int) -> tuple[Arena, Room]:
        raise MemoryError

    recorded = Recorded(1000)
    monkeypatch.setattr(arena, "_grown", without_memory)
    with pytest.raises(MemoryError):
        recorded.extend(recorded.begin(), [1] * FIRST_SEGMENTS * SEGMENT_TOKENS, None)
