"""Admission, chunked prefill and preemption, without a model: the tests play the model's part."""

import random

import pytest

from engine.page_pool import PagePool
from engine.request import Request
from engine.scheduler import Scheduler
from engine.sequence import Sequence


def scheduler(num_pages=100, page_size=4, max_running=8, prefill_chunk=64) -> Scheduler:
    return Scheduler(PagePool(num_pages, page_size), max_running, prefill_chunk)


def wait(scheduler: Scheduler, name: str, num_prompt: int, max_tokens: int = 20) -> Sequence:
    """A new sequence, whose prompt is unlike all others: tests/engine/test_prefix.py has those that begin
    alike.
    """
    prompt = tuple(random.Random(name).choices(range(1000), k=num_prompt))
    sequence = Sequence(Request(name, prompt, max_tokens), frozenset(), 10_000)
    scheduler.add(sequence)
    return sequence


def step(scheduler: Scheduler, tokens_per_call: int = 1) -> list[tuple[str, int]]:
    """What the engine does around the model: admit, schedule, commit, retire; returns (request, rows) of each
    chunk.
    """
    scheduler.admit()
    chunks = scheduler.schedule()
    scheduler.check_integrity()
    for chunk in chunks:
        sequence = chunk.sequence
        last = chunk.last
        room = scheduler.reserve(sequence, sequence.num_tokens + tokens_per_call - 1) if last else 0
        sequence.num_cached += chunk.num_tokens
        scheduler.publish([chunk])
        if last:
            accepted = max(0, min(tokens_per_call - 1, room - sequence.num_tokens, sequence.max_draft_depth))
            sequence.append([1] * (accepted + 1))
            if sequence.finish_reason:
                scheduler.retire(sequence)
            else:
                sequence.num_cached += accepted
    scheduler.check_integrity()
    return [(chunk.sequence.request.id, chunk.num_tokens) for chunk in chunks]


def names(sequences) -> list[str]:
    return [sequence.request.id for sequence in sequences]


def test_sequences_are_admitted_in_the_order_they_came_up_to_max_running():
    one = scheduler(max_running=2)
    for name in "abc":
        wait(one, name, 3)
    one.admit()
    assert (names(one.running), names(one.waiting)) == (["a", "b"], ["c"])


def test_a_sequence_waits_until_its_tokens_and_one_more_have_pages_and_nobody_overtakes_it():
    one = scheduler(num_pages=3, page_size=4)
    wait(one, "a", 3)  # one page
    wait(one, "b", 8)  # two pages and, with one token more, a third: two are free
    wait(one, "c", 1)  # would fit
    one.admit()
    assert (names(one.running), names(one.waiting)) == (["a"], ["b", "c"])


def test_a_sequence_that_fills_the_whole_pool_is_still_admitted():
    one = scheduler(num_pages=2, page_size=4)
    wait(one, "a", 8)
    one.admit()
    assert names(one.running) == ["a"]


def test_a_prompt_is_prefilled_in_chunks_and_only_the_last_gives_a_token():
    one = scheduler(prefill_chunk=4)
    a = wait(one, "a", 10)
    assert [step(one), a.num_output] == [[("a", 4)], 0]
    assert [step(one), a.num_output] == [[("a", 4)], 0]
    assert [step(one), a.num_output] == [[("a", 2)], 1]
    assert [step(one), a.num_output] == [[("a", 1)], 2]


def test_the_prefill_budget_is_shared_oldest_first_and_decoding_sequences_do_not_use_it():
    one = scheduler(prefill_chunk=6)
    wait(one, "a", 1)
    wait(one, "b", 5)
    wait(one, "c", 5)
    wait(one, "d", 5)
    assert step(one) == [("a", 1), ("b", 5), ("c", 1)]  # c's chunk is one row, but not its last
    assert step(one) == [("a", 1), ("b", 1), ("c", 4), ("d", 2)]
    assert step(one) == [("a", 1), ("c", 1), ("b", 1), ("d", 3)]


def test_decoding_chunks_come_first_by_length_then_prompts_oldest_first():
    one = scheduler(prefill_chunk=64)
    wait(one, "long", 9)
    wait(one, "short", 3)
    step(one)
    wait(one, "x", 4)
    wait(one, "y", 2)
    assert step(one) == [("short", 1), ("long", 1), ("x", 4), ("y", 2)]


def test_when_pages_run_out_the_youngest_is_preempted_and_is_the_first_to_come_back():
    one = scheduler(num_pages=4, page_size=2)
    a = wait(one, "a", 3)
    b = wait(one, "b", 3)
    assert step(one) == [("a", 3), ("b", 3)]
    wait(one, "c", 1)
    assert step(one) == [("a", 1), ("b", 1)]  # all four pages are now full
    assert step(one) == [("a", 1)]
    assert (one.num_preemptions, b.page_ids, b.num_cached, b.num_output) == (1, [], 0, 2)
    assert names(one.waiting) == ["b", "c"]
    assert len(a.page_ids) == 3


def test_a_preempted_sequence_keeps_its_tokens_and_runs_all_of_them_again():
    one = scheduler(num_pages=4, page_size=2)
    a = wait(one, "a", 3, max_tokens=4)
    b = wait(one, "b", 2, max_tokens=4)
    while not one.num_preemptions:
        step(one)
    had = b.token_ids.tolist()
    assert len(had) > 2
    while not a.finish_reason:
        step(one)
    assert step(one) == [("b", len(had))]
    assert b.token_ids.tolist() == [*had, 1]


def test_the_sequence_that_needs_a_page_gives_way_itself_when_it_is_the_youngest():
    one = scheduler(num_pages=3, page_size=4)
    wait(one, "a", 5)
    wait(one, "b", 3)
    assert step(one) == [("a", 5), ("b", 3)]
    assert step(one) == [("b", 1), ("a", 1)]
    assert step(one) == [("a", 1)]  # b's fifth token needs a second page; a's seventh fits in the two it has
    assert names(one.waiting) == ["b"]
    assert one.pool.num_free == 1


def test_retire_and_abort_free_the_pages():
    one = scheduler(num_pages=10)
    a = wait(one, "a", 3)
    b = wait(one, "b", 3)
    one.admit()
    c = wait(one, "c", 3)
    one.retire(a)
    one.abort(b)
    one.abort(c)
    assert (one.pool.num_free, one.running, list(one.waiting)) == (10, [], [])
    one.check_integrity()


def test_find_sees_waiting_and_running_sequences_only():
    one = scheduler(max_running=1)
    a = wait(one, "a", 3)
    b = wait(one, "b", 3)
    one.admit()
    assert (one.find("a"), one.find("b"), one.find("c")) == (a, b, None)


def test_integrity_finds_a_waiting_sequence_that_holds_pages():
    one = scheduler()
    wait(one, "a", 3).page_ids = one.pool.take(1)
    with pytest.raises(AssertionError):
        one.check_integrity()


@pytest.mark.parametrize("seed", range(20))
def test_under_random_load_every_sequence_ends_and_the_oldest_is_never_preempted(seed):
    """The oracle counts tokens: a sequence must get exactly max_tokens, whatever arrives, is aborted or
    preempted meanwhile.
    """
    rng = random.Random(seed)
    page_size = rng.choice([1, 2, 4, 16])
    longest = 40
    one = scheduler(
        -(-longest // page_size) + rng.randint(0, 6),
        page_size,
        rng.choice([1, 3, 16]),
        rng.choice([1, 5, 64]),
    )
    everything: dict[str, Sequence] = {}
    aborted: set[str] = set()
    for number in range(2000):
        if len(everything) < 25 and rng.random() < 0.3:
            num_prompt = rng.randint(1, 30)
            everything[f"r{number}"] = wait(
                one, f"r{number}", num_prompt, rng.randint(1, longest - num_prompt)
            )
        if rng.random() < 0.02 and (one.running or one.waiting):
            doomed = rng.choice([*one.running, *one.waiting])
            aborted.add(doomed.request.id)
            one.abort(doomed)
        oldest = one.running[0] if one.running else None
        before = (oldest.num_cached, oldest.num_tokens) if oldest else None
        step(one, tokens_per_call=rng.choice([1, 1, 4]))
        if oldest and not oldest.finish_reason:
            assert oldest is one.running[0]
            assert (oldest.num_cached, oldest.num_tokens) > before, "the oldest made no progress"
        if len(everything) == 25 and not one.running and not one.waiting:
            break
    assert not one.running
    assert not one.waiting
    assert one.pool.num_free == one.pool.num_pages
    for name, sequence in everything.items():
        if name not in aborted:
            assert sequence.num_output == sequence.request.max_tokens
