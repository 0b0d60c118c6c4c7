"""Sequences that begin alike: who computes, who waits, what is shared.

Without a model: the tests play its part.

`Memory` stands in for the K/V: a slot holds what a model would make it from, the tokens up to its own.
"""

import random

import pytest

from engine.page_pool import PagePool
from engine.request import Request
from engine.scheduler import Chunk, Scheduler
from engine.sequence import Sequence

HEADER = tuple(range(100, 112))  # three pages of four


def wait(scheduler: Scheduler, name: str, prompt: tuple[int, ...], max_tokens: int = 20) -> Sequence:
    sequence = Sequence(Request(name, prompt, max_tokens), frozenset(), 10_000)
    scheduler.add(sequence)
    return sequence


class Watched(Scheduler):
    """A scheduler with the memory that its pages stand for."""

    def __init__(self, num_pages=100, page_size=4, max_running=8, prefill_chunk=64, **settings) -> None:
        super().__init__(PagePool(num_pages, page_size), max_running, prefill_chunk, **settings)
        self.memory = Memory(page_size)


class Memory:
    """The pages' slots; a chunk reads what its sequence has cached, then writes its own tokens."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.slots: dict[int, tuple[int, ...]] = {}

    def write(self, sequence: Sequence, first: int, end: int) -> None:
        for position in range(first, end):
            slot = sequence.page_ids[position // self.page_size] * self.page_size + position % self.page_size
            self.slots[slot] = tuple(sequence.token_ids[: position + 1].tolist())

    def run(self, chunk: Chunk) -> None:
        sequence = chunk.sequence
        start = chunk.sequence.num_cached
        for position in range(start):
            slot = sequence.page_ids[position // self.page_size] * self.page_size + position % self.page_size
            assert self.slots[slot] == tuple(sequence.token_ids[: position + 1].tolist()), (
                sequence.request.id,
                position,
            )
        self.write(sequence, start, start + chunk.num_tokens)


def step(scheduler: Watched, tokens: tuple[int, ...] = (1,)) -> list[tuple[str, int]]:
    """What the engine does around the model, with `tokens` accepted of each tree; returns (request, rows) of
    each chunk.
    """
    scheduler.admit()
    chunks = scheduler.schedule()
    scheduler.check_integrity()
    lasts = [chunk.last for chunk in chunks]
    for chunk, last in zip(chunks, lasts, strict=True):
        sequence = chunk.sequence
        room = scheduler.reserve(sequence, sequence.num_tokens + len(tokens) - 1) if last else 0
        scheduler.memory.run(chunk)
        sequence.num_cached += chunk.num_tokens
        if last:
            num_accepted = max(0, min(len(tokens) - 1, room - sequence.num_tokens, sequence.max_draft_depth))
            sequence.append(list(tokens[: num_accepted + 1]))
            if not sequence.finish_reason:
                scheduler.memory.write(sequence, sequence.num_cached, sequence.num_cached + num_accepted)
                sequence.num_cached += num_accepted
    scheduler.publish(chunks)
    for sequence in [sequence for sequence in scheduler.running if sequence.finish_reason]:
        scheduler.retire(sequence)
    scheduler.check_integrity()
    return [(chunk.sequence.request.id, chunk.num_tokens) for chunk in chunks]


def names(sequences) -> list[str]:
    return [sequence.request.id for sequence in sequences]


def test_a_second_prompt_waits_for_the_beginning_that_the_first_computes_and_runs_only_the_rest():
    one = Watched()
    a = wait(one, "a", (*HEADER, 1, 2, 3))
    b = wait(one, "b", (*HEADER, 7, 8))
    assert step(one) == [("a", 15)]
    assert step(one) == [("a", 1), ("b", 2)]
    assert b.page_ids[:3] == a.page_ids[:3]
    assert set(b.page_ids[3:]).isdisjoint(a.page_ids)
    assert (one.num_prompt_tokens, one.num_cached_tokens) == (29, 12)
    assert (a.stats.num_cached_tokens, b.stats.num_cached_tokens) == (0, 12)


@pytest.mark.parametrize(("length", "rows"), [(12, 4), (13, 1), (15, 3), (16, 4), (17, 1)])
def test_samples_of_one_prompt_run_at_most_its_last_page_and_always_its_last_token(length, rows):
    one = Watched()
    prompt = tuple(range(length))
    for name in "abc":
        wait(one, name, prompt)
    assert step(one) == [("a", length)]
    assert sorted(step(one)) == [("a", 1), ("b", rows), ("c", rows)]


def test_a_prompt_shorter_than_a_page_shares_nothing_and_waits_for_nobody():
    one = Watched()
    wait(one, "a", (1, 2, 3))
    wait(one, "b", (1, 2, 3))
    assert step(one) == [("a", 3), ("b", 3)]


def test_the_same_tokens_behind_another_beginning_are_not_the_same_page():
    one = Watched(page_size=2)
    wait(one, "a", (5, 6, 7, 8, 9))
    step(one)
    wait(one, "b", (1, 2, 7, 8, 9))
    wait(one, "c", (5, 6, 1, 2, 7, 8, 9))
    assert step(one) == [("a", 1), ("b", 5), ("c", 5)]


def test_a_waiting_prompt_is_overtaken_by_others_but_comes_before_them_when_its_time_has_come():
    one = Watched(max_running=2, prefill_chunk=8)
    wait(one, "a", (*HEADER, 1), max_tokens=3)
    wait(one, "b", (*HEADER, 2))
    wait(one, "c", (7, 7, 7), max_tokens=1)
    wait(one, "d", (8, 8, 8))
    one.admit()
    assert (names(one.running), names(one.waiting)) == (["a", "c"], ["b", "d"])
    assert step(one) == [("a", 8)]
    assert step(one) == [("a", 5), ("c", 3)]  # c ends
    assert step(one) == [("b", 1), ("a", 1)]


def test_a_prompt_waits_as_long_as_the_next_page_of_its_own_is_being_computed_and_no_longer():
    one = Watched(prefill_chunk=8)
    wait(one, "a", (*HEADER, *range(40)))
    wait(one, "b", (*HEADER[:6], 1, 2, 3))  # one page is shared
    assert step(one) == [("a", 8)]
    one.admit()
    assert names(one.running) == ["a", "b"]


def test_many_who_wait_for_one_all_start_when_it_is_done():
    one = Watched(max_running=64)
    for number in range(64):
        wait(one, f"{number}", (*HEADER, number, number))
    assert step(one) == [("0", 14)]
    assert len(step(one)) == 1 + 32  # as many as the prefill budget of 64 rows has room for
    assert (len(one.running), one.num_cached_tokens) == (64, 63 * 12)


@pytest.mark.parametrize("end", ["abort", "preempt"])
def test_who_waited_for_a_prefill_that_breaks_off_goes_on_with_what_is_there(end):
    one = Watched(prefill_chunk=9)
    a = wait(one, "a", (*HEADER, 1, 2, 3))
    wait(one, "b", (*HEADER, 7, 8))
    assert step(one) == [("a", 9)]  # two pages are full, the third has one token
    if end == "abort":
        one.abort(a)
    else:
        one.running.remove(a)
        one._free_pages(a)
        one.waiting.append(a)  # behind b, who becomes the one that is waited for
    assert step(one) == [("b", 6)]
    assert step(one) == [("b", 1)] if end == "abort" else [("b", 1), ("a", 3)]


def test_a_preempted_sequence_finds_its_own_pages_again_as_far_as_nobody_took_them():
    one = Watched(num_pages=6, page_size=2)
    a = wait(one, "a", (1, 2, 3, 4, 5), max_tokens=4)
    b = wait(one, "b", (7, 8, 9, 10, 11), max_tokens=5)
    while not one.num_preemptions:
        step(one)
    assert (b.num_tokens, b.num_cached) == (7, 0)
    while not a.finish_reason:
        step(one)
    assert step(one) == [("b", 3)]  # of 7 tokens; three of its pages were full, a took the last of them
    assert (one.num_prompt_tokens, one.num_cached_tokens) == (10, 0)


def test_the_output_of_a_finished_sequence_is_found_by_the_next_turn():
    one = Watched(page_size=4)
    a = wait(one, "a", (1, 2, 3), max_tokens=10)
    while not a.finish_reason:
        step(one)
    b = wait(one, "b", (*a.token_ids.tolist(), 5, 6))
    one.admit()
    assert (len(a.token_ids), b.num_cached) == (13, 12)


def test_pages_fill_up_and_the_longest_unused_beginning_is_computed_again():
    one = Watched(num_pages=6, page_size=4)
    for first in (100, 200, 100, 300, 100, 200):
        wait(one, "x", tuple(range(first, first + 9)), max_tokens=1)
        step(one)
    # 100 stays, for it was used between; 200 went when 300 came.
    assert one.num_cached_tokens == 2 * 8


def test_a_prompt_that_fits_only_because_its_beginning_is_there_is_admitted():
    one = Watched(num_pages=5, page_size=4)
    wait(one, "a", (*HEADER, 1))
    step(one)
    wait(one, "b", (*HEADER, 2))
    assert sorted(step(one)) == [("a", 1), ("b", 1)]
    assert one.pool.num_free == 0


def test_idle_pages_that_a_prompt_would_hold_are_not_counted_as_room_for_its_rest():
    one = Watched(num_pages=6, page_size=4)
    wait(one, "a", (*HEADER, 1), max_tokens=1)
    step(one)
    wait(one, "big", tuple(range(8)))
    step(one)
    assert one.pool.num_free == 4  # the header's three pages and one more; b needs two besides the header's
    wait(one, "b", (*HEADER, 2, 3, 4, 5, 6))
    one.admit()
    assert names(one.waiting) == ["b"]


def test_switched_off_nothing_is_shared_and_nobody_waits():
    one = Watched(prefix_cache=False)
    wait(one, "a", (*HEADER, 1))
    wait(one, "b", (*HEADER, 1))
    assert step(one) == [("a", 13), ("b", 13)]
    assert one.num_cached_tokens == 0
    assert one.pool.find([b"anything"]) == []


def test_no_more_than_so_many_are_overtaken_at_once(monkeypatch):
    monkeypatch.setattr("engine.scheduler.MAX_OVERTAKEN", 2)
    one = Watched()
    for name in "abc":
        wait(one, name, (*HEADER, 1))
    wait(one, "other", (7, 7, 7))
    assert step(one) == [("a", 13)]
    assert names(one.waiting) == ["b", "c", "other"]


def test_integrity_finds_a_page_that_holds_other_tokens_than_its_key_says():
    one = Watched()
    a = wait(one, "a", (*HEADER, 1))
    step(one)
    a.page_ids[0], a.page_ids[1] = a.page_ids[1], a.page_ids[0]
    with pytest.raises(AssertionError, match="other tokens"):
        one.check_integrity()


def test_integrity_finds_somebody_who_is_waited_for_but_does_not_run():
    one = Watched(prefill_chunk=4)
    a = wait(one, "a", (*HEADER, 1))
    step(one)
    one.running.remove(a)
    one.pool.give_back(a.page_ids)
    del one._unfinished["a"]
    with pytest.raises(AssertionError, match="does not run"):
        one.check_integrity()


@pytest.mark.parametrize("seed", range(20))
def test_under_random_load_every_slot_read_holds_the_tokens_before_it_and_every_sequence_ends(seed):
    rng = random.Random(seed)
    page_size = rng.choice([1, 2, 4, 16, 64])
    longest = 70
    one = Watched(
        -(-longest // page_size) + rng.randint(0, 6),
        page_size,
        rng.choice([1, 3, 16]),
        rng.choice([1, 5, 64]),
    )
    everything: dict[str, Sequence] = {}
    aborted: set[str] = set()
    headers = [tuple(rng.choices(range(9), k=rng.randint(1, 30))) for _ in range(3)]
    for number in range(4000):
        if len(everything) < 40 and rng.random() < 0.3:
            prompt = (*rng.choice(headers), *rng.choice(headers), *rng.choices(range(2), k=rng.randint(0, 4)))
            everything[f"r{number}"] = wait(one, f"r{number}", prompt, rng.randint(1, longest - len(prompt)))
        if rng.random() < 0.02 and (one.running or one.waiting):
            doomed = rng.choice([*one.running, *one.waiting])
            aborted.add(doomed.request.id)
            one.abort(doomed)
        oldest = one.running[0] if one.running else None
        before = (oldest.num_cached, oldest.num_tokens) if oldest else None
        has_work = bool(one.running or one.waiting)
        chunks = step(one, tuple(rng.choices(range(2), k=rng.choice([1, 1, 4]))))
        assert bool(chunks) == has_work, "everybody waits for nobody"
        if oldest and not oldest.finish_reason:
            assert oldest is one.running[0]
            assert (oldest.num_cached, oldest.num_tokens) > before, "the oldest made no progress"
        if len(everything) == 40 and not one.running and not one.waiting:
            break
    assert not one.running
    assert not one.waiting
    assert one.pool.num_free == one.pool.num_pages
    assert one.prefix._computing == {}
    assert (one.num_cached_tokens > 0) or page_size > 16
    for name, sequence in everything.items():
        assert name in aborted or sequence.num_output == sequence.request.max_tokens
